"""Download, cache and verify model weights by name, and tell the path that libraries load.

Libraries that compute are imported only inside the conversions, those that download only inside the downloads.
"""

from emopipe.pipeline.weights.catalogue import Entry, Packages, Url, entry, known, names, read
from emopipe.pipeline.weights.located import Identity, Located, find, identify, locate, needs_file
from emopipe.pipeline.weights.store import (
    State,
    Status,
    cache_dir,
    fetch,
    given,
    here,
    offline_by_environment,
    resolve,
    status,
    unlisted,
    verify,
)

__all__ = [
    "Entry",
    "Identity",
    "Located",
    "Packages",
    "State",
    "Status",
    "Url",
    "cache_dir",
    "entry",
    "fetch",
    "find",
    "given",
    "here",
    "identify",
    "known",
    "locate",
    "names",
    "needs_file",
    "offline_by_environment",
    "read",
    "resolve",
    "status",
    "unlisted",
    "verify",
]

"""Relate recordings in which the same speaker is named, so that each is read relative to what is usual for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from emopipe.errors import EmopipeError
from emopipe.pipeline.execution.plan import Job, contents, results
from emopipe.pipeline.records import Related, Source
from emopipe.pipeline.stages.fusion import FUSION
from emopipe.pipeline.store.store import Store

#: A speaker of fewer recordings is not related to any.
LEAST_RECORDINGS: Final = 2


def related(sources: Iterable[Source], job: Job, store: Store) -> dict[Source, Related]:
    """Source -> the recordings of its speaker, for speakers who are named in several and models that read relative.

    Nothing is measured: the key follows from the bytes of the files and from what would be done with them.
    """
    of_speaker: dict[str, list[tuple[str, Source]]] = {}
    for source in sources if job.relative else ():
        if source.speaker is None:
            continue
        try:
            key = results(source, contents(source, store), job)[FUSION.name].key
        except EmopipeError:  # it has become unreadable: the stage that reads it tells
            continue
        of_speaker.setdefault(source.speaker, []).append((key, source))
    found = {}
    for keyed in of_speaker.values():
        if len(keyed) < LEAST_RECORDINGS:
            continue
        keyed.sort(key=lambda pair: (pair[0], pair[1].id))
        digest = hashlib.sha256("\n".join(key for key, _ in keyed).encode()).hexdigest()[:40]
        group = Related(digest, tuple(source for _, source in keyed))
        found.update(dict.fromkeys(group.sources, group))
    return found

"""What the HTML pages have in common: one look, one colour per class, and the functions that templates call."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emopipe.pipeline.formatting import clock, printable, span
from emopipe.pipeline.report.codes import anchor, parted

if TYPE_CHECKING:
    from jinja2 import Environment

    from emopipe.pipeline.report.person_statistics import Person

PALETTE: Final = {
    "anger": "#c8442f",
    "disgust": "#7a8b2a",
    "fear": "#6c4f9e",
    "happiness": "#d99a10",
    "neutral": "#8a8f98",
    "sadness": "#3b6fb0",
    "surprise": "#1f9a94",
}
#: For the classes of other checkpoints.
SPARE: Final = ("#a0527a", "#5b7d4f", "#b0713b", "#4f6d7d", "#84594d", "#5f5fa8")


def colours(labels: Sequence[str]) -> dict[str, str]:
    """Class -> its colour as #rrggbb."""
    return {label: PALETTE.get(label) or SPARE[index % len(SPARE)] for index, label in enumerate(labels)}


def ink(colour: str) -> str:
    """Black or white, whichever is read better on the colour: the greater contrast as WCAG 2.2 defines it."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"


def render(template: str, **facts: Any) -> str:
    """A page as text, from a template beside this file; whatever is put in is escaped.

    Args:
        template: the file's name; one of HTML escapes by itself.
        facts: what the template speaks of.
    """
    return _environment().get_template(template).render(facts)


@cache
def _environment() -> Environment:
    """The templates, each compiled once in a process."""
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {"clock": clock, "span": span, "printable": printable, "ink": ink}
    environment.filters |= {"anchor": anchor, "parted": parted, "sha256": _sha256}
    return environment


def _sha256(text: str) -> str:
    """The digest of an inline script, by which a content security policy allows it and no other."""
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


class Names:
    """How files and persons are called on the page about many: a file by its path below the folder that all lie in."""

    def __init__(self, media: Iterable[Path]) -> None:
        folders = [os.fspath(path.parent) for path in media]
        try:
            self._common = os.path.commonpath(folders)
        except ValueError:  # none, or absolute and relative ones
            self._common = ""

    def file(self, path: Path) -> str:
        """The name of a file."""
        return printable(path.relative_to(self._common).as_posix() if self._common else path.as_posix())

    def person(self, person: Person) -> str:
        """The name of a person, with the file where it says nothing beyond it."""
        parts = (self.file(person.media) if person.media else None, person.speaker)
        return " / ".join(printable(part) for part in parts if part)

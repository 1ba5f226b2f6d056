"""Find the inputs that a table means: by a path or the end of one, with or without the suffix."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from emopipe.pipeline.formatting import printable

#: What to do about a name that may be several inputs.
AMBIGUOUS: Final = "Write more of its path or its suffix"


class RecordingNames:
    """What a table may call the inputs of a run.

    Args:
        files: the inputs.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._named: dict[str, set[Path]] = {}
        for file in files:
            parts = file.parts
            for start in range(len(parts)):
                end = Path(*parts[start:])
                for name in {end.as_posix(), (end.parent / end.stem).as_posix()}:
                    for written in {name, printable(name)}:
                        self._named.setdefault(unicodedata.normalize("NFC", written), set()).add(file)

    def shortest(self, file: Path) -> str:
        """The shortest end of an input's path that means it alone, as it can be written; the whole path for none."""
        ends = (Path(*file.parts[start:]).as_posix() for start in reversed(range(len(file.parts))))
        return printable(next((end for end in ends if self.find(printable(end)) == [file]), file.as_posix()))

    def find(self, name: str) -> list[Path]:
        """The inputs that a name may mean, in order; the one of exactly that path, where there is one."""
        normal = unicodedata.normalize("NFC", name)
        matches = self._named.get(normal) or self._named.get(normal.replace("\\", "/").removeprefix("./"), set())
        return sorted(matches & {Path(normal)} or matches)

    def doubt(self, name: str) -> str:
        """Which inputs a name may mean, in words, where these are several; else ""."""
        several = self.find(name)[:2]
        return f"file is {name!r}, which may be {' and '.join(map(str, several))}" if len(several) > 1 else ""

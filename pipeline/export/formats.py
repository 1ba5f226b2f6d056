"""The formats of export by name: which files each writes, and what it needs of what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emopipe.errors import UnknownName
from emopipe.pipeline.export import diarization, elan_praat, subtitles, tables
from emopipe.pipeline.export.recording import Recording

#: Writes a file about a recording.
Writer = Callable[[Recording, Path], None]


@dataclass(frozen=True)
class OutputFile:
    """A file of a format.

    Attributes:
        suffix: after the recording's name.
        write: writes it; its docstring says what it holds.
        needs: stages that must have measured something, or there is no such file.
        uses: stages without whose results something is left out of it.
    """

    suffix: str
    write: Writer
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()


#: Name of a format -> its files.
FORMATS: Final[dict[str, tuple[OutputFile, ...]]] = {
    "parquet": (
        OutputFile(".utterances.parquet", tables.write_utterances),
        OutputFile(".frames.parquet", tables.write_frames_parquet, needs=("face",)),
        OutputFile(".voice.parquet", tables.write_voice, needs=("voice",)),
    ),
    "frames.csv": (OutputFile(".frames.csv", tables.write_frames_csv, needs=("face",)),),
    "openface.csv": (OutputFile(".openface.csv", tables.write_openface, needs=("face",)),),
    "srt": (OutputFile(".srt", subtitles.write_srt),),
    "vtt": (OutputFile(".vtt", subtitles.write_vtt),),
    "eaf": (OutputFile(".eaf", elan_praat.write_eaf, uses=("words",)),),
    "textgrid": (OutputFile(".TextGrid", elan_praat.write_textgrid, uses=("words",)),),
    "rttm": (OutputFile(".rttm", diarization.write_rttm),),
    "xlsx": (OutputFile(".xlsx", tables.write_xlsx),),
    "jsonl": (OutputFile(".jsonl", tables.write_jsonl),),
}


def chosen_formats(names: str | Sequence[str]) -> tuple[str, ...]:
    """Formats by their names, or a list of them with commas.

    Raises:
        UnknownName: there is no such format, or none is named.
    """
    given = names.split(",") if isinstance(names, str) else names
    formats = tuple(dict.fromkeys(name.strip().lower() for name in given if name.strip()))
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        what = f"there is no format {unknown[0]!r}" if unknown else "no format is named"
        raise UnknownName(what, hint=f"Choose of: {', '.join(FORMATS)}")
    return formats

"""What the front door gives back: results of a run, of an extraction, and tables of faces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, overload

from emopipe.errors import Reason
from emopipe.pipeline.privacy.disguise import Disguise
from emopipe.pipeline.records import Failure, FileResult, TurnResult, UtteranceResult

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from emopipe.models.data.dataset import Dataset
    from emopipe.pipeline.export.export import Exported

__all__ = ["DatasetResult", "FaceFrames", "Failure", "FileResult", "Results", "TurnResult", "UtteranceResult"]


class Results(Sequence[FileResult]):
    """What became of the files of a run, in the order in which they were named, those of a folder in that of names.

    In a notebook it shows a timeline of each file.

    Args:
        files: one result per file.
        store: folder of the store that holds what was measured.
        keep: whatever must live as long as the results, such as a temporary store.
        skipped: files beside them that are not recordings, and why.
        disguise: what is hidden in them.
    """

    def __init__(
        self,
        files: Sequence[FileResult],
        store: Path,
        keep: object = None,
        skipped: Mapping[Path, Reason] | None = None,
        disguise: Disguise | None = None,
    ) -> None:
        self._disguise = disguise or Disguise()
        self.skipped = dict(skipped or {})
        self._files = list(files)
        self._store = store
        self._keep = keep

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> FileResult: ...
    @overload
    def __getitem__(self, index: slice) -> Results: ...
    def __getitem__(self, index: int | slice) -> FileResult | Results:
        if isinstance(index, slice):
            return Results(self._files[index], self._store, self._keep, self.skipped, self._disguise)
        return self._files[index]

    def __repr__(self) -> str:
        lines = [f"{file.media}: {file.state}, {len(file.utterances)} utterances" for file in self._files]
        return "\n".join([f"Results of {len(self)} file{'' if len(self) == 1 else 's'}", *lines])

    def _repr_html_(self) -> str:
        from emopipe.pipeline.report.notebook import results_html

        return results_html(self._files)

    @property
    def failed(self) -> list[FileResult]:
        """The files that gave no result; their `reasons` tell why."""
        return [file for file in self._files if file.state == "failed"]

    @property
    def faces(self) -> FaceFrames:
        """The faces of all files, one row per sampled frame and face."""
        return FaceFrames(self._files, self._store, self._keep)

    def export(self, to: str | Sequence[str], out: str | Path) -> Exported:
        """Write the results in the formats of other programs; see :func:`emopipe.export`.

        Args:
            to: formats, as a list or with commas.
            out: folder for the files.

        Raises:
            UnknownName: there is no such format.
            OutputError: a file cannot be written.
        """
        from emopipe.pipeline.export.export import export
        from emopipe.pipeline.export.formats import chosen_formats
        from emopipe.pipeline.export.recording import recording_of
        from emopipe.pipeline.report.outputs import stems
        from emopipe.pipeline.store.store import Store

        names = stems(file.media for file in self._files)
        with Store(self._store) as store:
            whole = (
                recording_of(file, names[file.media], store, self._disguise)
                for file in self._files
                if file.state != "failed"
            )
            return export(whole, chosen_formats(to), Path(out))

    def to_pandas(self) -> pd.DataFrame:
        """One row per utterance.

        Returns:
            A frame with the index (file, start, end), times in seconds on the media clock, and the columns of
            :class:`UtteranceResult`: `speaker`, `text`, `label`, `confidence`, ..., `probability_CLASS`,
            `weight_MODALITY`, `absent_MODALITY`, `quality_MODALITY`.
        """
        import pandas as pd

        from emopipe.pipeline.report.outputs import flat_row

        rows = [
            {"file": str(file.media), **flat_row(asdict(utterance))}
            for file in self._files
            for utterance in file.utterances
        ]
        plain = ("start", "end", "speaker", "role", "overlap", "text", "label", "value", "confidence", "abstained")
        frame = pd.DataFrame(rows, columns=None if rows else ["file", *plain])
        numbers = {"value": float, "confidence": float}
        return frame.astype(numbers).set_index(["file", "start", "end"])


class FaceFrames:
    """The faces that were measured in files, read from the store when they are asked for.

    Args:
        files: whose faces.
        store: folder of the store.
        keep: whatever must live as long as the faces.
    """

    def __init__(self, files: Sequence[FileResult], store: Path, keep: object = None) -> None:
        self._files, self._store, self._keep = list(files), store, keep

    def tables(self) -> Iterator[tuple[FileResult, pa.Table]]:
        """Each file in which faces were looked for, and its face table; see `docs/schema.md`."""
        import pyarrow as pa

        from emopipe.pipeline.store.store import Store

        with Store(self._store) as store:
            for file in self._files:
                stored = store.get(file.keys["face"]) if "face" in file.keys else None
                table = None if stored is None else stored["face_table"]
                if isinstance(table, pa.Table):
                    yield file, table

    def to_pandas(self) -> pd.DataFrame:
        """One row per sampled frame and face.

        Returns:
            A frame with the index (file, time, track), time in seconds on the media clock, `person` (the name of whose
            face it is, None when it is nobody's who speaks), and the columns of the face table: box, quality, head
            pose, action units, blendshapes, ...; columns that the face backend does not measure are left out, as far
            as there are faces.
        """
        import pandas as pd

        from emopipe.extractors.face.table import face_table

        frames = []
        for file, table in self.tables():
            if not table.num_rows:
                continue
            frame = table.to_pandas().dropna(axis="columns", how="all")
            names = {track: person.name for person in file.people for track in person.tracks}
            frame.insert(0, "file", str(file.media))
            frame.insert(3, "person", [names.get(track) for track in frame["track"]])
            frames.append(frame)
        none = face_table([], backend="", version="", frames=0).to_pandas().assign(file="", person="")
        whole = pd.concat(frames, ignore_index=True) if frames else none
        return whole.set_index(["file", "time", "track"])


@dataclass(frozen=True)
class DatasetResult:
    """A dataset that was extracted.

    Attributes:
        path: its folder.
        sources: how many rows or files were asked for.
        failures: those that gave nothing.
        reasons: what is doubtful about the labels table and the recordings, or was chosen in reading them; those of a
            recording have its id in `where.path`.
    """

    path: Path
    sources: int
    failures: Sequence[Failure] = field(default=())
    reasons: Sequence[Reason] = field(default=())

    def __fspath__(self) -> str:
        return str(self.path)

    def load(self) -> Dataset:
        """Open it, with the features of each modality."""
        from emopipe.models.data.reading import read

        return read(self.path)

    def to_pandas(self) -> pd.DataFrame:
        """Its manifest: one row per utterance, with the index (file, start, end) and labels, speaker, words, ..."""
        import pyarrow.parquet as pq

        manifest: pd.DataFrame = pq.read_table(self.path / "manifest.parquet").to_pandas()
        return manifest.rename(columns={"media": "file"}).set_index(["file", "start", "end"])

"""Write what a run found: JSON, CSV and one self-contained HTML page per clip, a summary and a manifest per batch."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from emopipe.extractors.speech.diarize import Turn, joined
from emopipe.pipeline.errors import EmopipeError
from emopipe.pipeline.records import Extraction, Utterance

if TYPE_CHECKING:
    from emopipe.models.checkpoint import Prediction

DISCLAIMER: Final = (
    "Estimates of displayed expression, not of inner state. Inferring emotions of people at work or in education "
    "is prohibited in the European Union (AI Act, Article 5(1)(f))."
)


@dataclass(frozen=True)
class ClipResult:
    """What became of one input file.

    Attributes:
        path: the input.
        state: "ok"; "degraded" when a modality or part of the file was unusable; "failed" without any result.
        reasons: why it is not ok.
        extraction, predictions: what was found, in step; empty when failed.
        checkpoint: id of the model.
        seconds: wall time spent.
    """

    path: Path
    state: Literal["ok", "degraded", "failed"]
    reasons: list[str]
    extraction: Extraction | None
    predictions: list[Prediction]
    checkpoint: str
    seconds: float

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per utterance, as written to JSON."""
        if self.extraction is None:
            return []
        pairs = zip(self.extraction.utterances, self.predictions, strict=True)
        unverified = self.extraction.info.get("unverified_weights")
        note = {"unverified_weights": unverified} if unverified else {}
        return [{**_row(utterance, prediction), **note} for utterance, prediction in pairs]


def _row(utterance: Utterance, prediction: Prediction) -> dict[str, Any]:
    return {
        "start": round(utterance.start, 3),
        "end": round(utterance.end, 3),
        "speaker": utterance.speaker,
        "role": utterance.role,
        "overlap": round(utterance.overlap, 3),
        "text": utterance.text,
        "label": prediction.label,
        "value": prediction.value,
        "probabilities": _rounded(prediction.probabilities),
        "weights": _rounded(prediction.weights),
        "unimodal": {modality: _rounded(said) for modality, said in prediction.unimodal.items()},
        "absent": dict(utterance.absent),
        "quality": _rounded(utterance.quality),
        "confidence": None if prediction.confidence is None else round(prediction.confidence, 4),
        "abstained": prediction.abstained,
    }


def _rounded(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(number, 4) for name, number in numbers.items()}


def document(result: ClipResult, config_hash: str, version: str) -> dict[str, Any]:
    """Everything about a clip as one JSON object."""
    extraction = result.extraction
    return {
        "emopipe": version,
        "media": str(result.path),
        "state": result.state,
        "reasons": result.reasons,
        "duration": round(extraction.duration, 3) if extraction else None,
        "info": extraction.info if extraction else {},
        "checkpoint": result.checkpoint,
        "config_hash": config_hash,
        "notice": DISCLAIMER,
        "people": [asdict(person) for person in extraction.people] if extraction else [],
        "turns": [_turn(turn) for turn in joined(extraction.turns)] if extraction else [],
        "utterances": result.rows(),
    }


def _turn(turn: Turn) -> dict[str, Any]:
    return {"start": round(turn.start, 3), "end": round(turn.end, 3), "person": turn.person, "overlap": turn.overlapped}


class Sink:
    """A folder that receives the files of a run.

    Args:
        folder: created when missing.
        config_hash: identifies the extraction config in every file.
        version: of emopipe.

    Raises:
        EmopipeError: EMO-601 when the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, config_hash: str, version: str) -> None:
        self.folder = folder
        self._config_hash = config_hash
        self._version = version
        self._used: dict[str, Path] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from None

    def write(self, result: ClipResult) -> list[Path]:
        """Write a clip's JSON, CSV and HTML; a failed clip has none. Returns the paths."""
        if result.extraction is None:
            return []
        stem = self._stem(result.path)
        facts = document(result, self._config_hash, self._version)
        rows = result.rows()
        pages = {
            f"{stem}.json": json.dumps(facts, indent=1, ensure_ascii=False) + "\n",
            f"{stem}.csv": _csv([_flat(row) for row in rows]),
            f"{stem}.html": render_page(facts, self._relative(result.path)),
        }
        return [self._put(name, text) for name, text in pages.items()]

    def finish(self, results: Sequence[ClipResult]) -> None:
        """Write `summary.csv` (every utterance of every clip) and `manifest.json` (what became of every input)."""
        rows = [{"media": str(result.path), **_flat(row)} for result in results for row in result.rows()]
        self._put("summary.csv", _csv(rows))
        entries = [
            {
                "media": str(result.path),
                "state": result.state,
                "reasons": result.reasons,
                "utterances": len(result.predictions),
                "checkpoint": result.checkpoint,
                "config_hash": self._config_hash,
                "seconds": round(result.seconds, 2),
            }
            for result in results
        ]
        self._put("manifest.json", json.dumps({"emopipe": self._version, "inputs": entries}, indent=1) + "\n")

    def _stem(self, path: Path) -> str:
        """The input's stem; a short hash follows when another input of the run has the same."""
        stem = path.stem
        if self._used.setdefault(stem, path) != path:
            stem = f"{stem}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
            self._used[stem] = path
        return stem

    def _relative(self, path: Path) -> str:
        return Path(os.path.relpath(path.resolve(), self.folder.resolve())).as_posix()

    def _put(self, name: str, text: str) -> Path:
        path = self.folder / name
        partial = path.with_name(f".{name}.partial-{os.getpid()}")
        try:
            partial.write_text(text, "utf-8", newline="")
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise _unwritable(path, error) from None
        return path


def _unwritable(path: Path, error: OSError) -> EmopipeError:
    hint = "Free some space or name another folder with --out"
    return EmopipeError("EMO-601", f"output cannot be written: {error.strerror}", path=path, hint=hint)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row without nesting: `probability_anger`, `weight_face`, `absent_text`, ..."""
    flat: dict[str, Any] = {}
    singular = {"probabilities": "probability", "weights": "weight", "absent": "absent", "quality": "quality"}
    for name, value in row.items():
        if name in singular:
            flat |= {f"{singular[name]}_{key}": inner for key, inner in value.items()}
        elif name == "unverified_weights":
            flat[name] = "; ".join(value)
        elif name != "unimodal":
            flat[name] = value
    return flat


def _csv(rows: list[dict[str, Any]]) -> str:
    import io

    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def render_page(facts: dict[str, Any], media_link: str) -> str:
    """A self-contained HTML page with the clip's timeline; it plays the video from where it lies."""
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape())
    labels = sorted({name for row in facts["utterances"] for name in row["probabilities"]})
    return environment.get_template("report.html").render(facts=facts, media_link=media_link, labels=labels)

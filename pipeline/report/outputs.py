"""Write what a run found: JSON, CSV and one self-contained HTML page per clip, tables and a manifest per batch.

All files but `timings.csv` depend on the inputs, the checkpoint and the configuration alone: no dates, no durations of
work. A run that was interrupted and repeated leaves the same bytes as one that was not.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from emopipe.errors import EmopipeError, InputNotFound, OutputError, Reason, Where
from emopipe.files import remove_leftovers, write_atomic
from emopipe.pipeline.corrections.kept import attach, read_kept
from emopipe.pipeline.corrections.review import corrected_columns
from emopipe.pipeline.records import FileResult, UtteranceResult
from emopipe.pipeline.store.store import Store

DISCLAIMER: Final = (
    "Estimates of displayed expression, not of inner state. Inferring emotions of people at work or in education "
    "is prohibited in the European Union (AI Act, Article 5(1)(f))."
)
MANIFEST: Final = "manifest.json"
#: The page about all files.
SUMMARY: Final = "summary.html"
#: Stems of the files of a batch, which no clip's files may have.
RESERVED: Final = ("manifest", "summary", "utterances", "timings", "applied_corrections", "corrections")
#: A file name may have 255 bytes; this leaves room for suffixes.
LONGEST_STEM: Final = 180
#: While a batch runs, the manifest is brought up to date this often, in seconds.
KEPT_UP: Final = 10.0


def row_of(utterance: UtteranceResult) -> dict[str, Any]:
    """An utterance as it is written to JSON."""
    row: dict[str, Any] = {
        "start": round(utterance.start, 3),
        "end": round(utterance.end, 3),
        "speaker": utterance.speaker,
        "role": utterance.role,
        "overlap": round(utterance.overlap, 3),
        "text": utterance.text,
        "label": utterance.label,
        "value": utterance.value,
        "probabilities": _rounded(utterance.probabilities),
        "weights": _rounded(utterance.weights),
        "unimodal": {modality: _rounded(shares) for modality, shares in utterance.unimodal.items()},
        "absent": dict(utterance.absent),
        "quality": _rounded(utterance.quality),
        "confidence": None if utterance.confidence is None else round(utterance.confidence, 4),
        "abstained": utterance.abstained,
        "without": {modality: _rounded(shares) for modality, shares in utterance.without.items()},
    }
    if utterance.unverified_weights:
        row["unverified_weights"] = list(utterance.unverified_weights)
    if utterance.corrections:
        row["corrections"] = [one.as_json() for one in utterance.corrections]
    return row


def _rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: round(number, 4) for name, number in numbers.items()}


def document(result: FileResult, config_hash: str, version: str) -> dict[str, Any]:
    """Everything about a file as one JSON object."""
    return {
        "emopipe": version,
        "media": str(result.media),
        "state": result.state,
        "reasons": [reason_as_json(reason) for reason in result.reasons],
        "duration": None if result.duration is None else round(result.duration, 3),
        "info": result.info,
        "checkpoint": result.checkpoint,
        "config_hash": config_hash,
        "notice": DISCLAIMER,
        "people": [asdict(person) for person in result.people],
        "turns": [{**asdict(turn), "start": round(turn.start, 3), "end": round(turn.end, 3)} for turn in result.turns],
        "utterances": [row_of(utterance) for utterance in result.utterances],
        "keys": dict(result.keys),
        **({"privacy": asdict(result.privacy)} if result.privacy else {}),
    }


def reason_as_json(reason: Reason) -> dict[str, Any]:
    """A reason as it is written to JSON."""
    where = None if reason.where is None else {k: v for k, v in asdict(reason.where).items() if v is not None}
    return {**asdict(reason), "where": where}


def reason_from_json(facts: Any) -> Reason:
    """A reason as it was written; runs of earlier versions wrote its words alone."""
    if isinstance(facts, str):
        return Reason("", facts)
    where = facts.get("where")
    return Reason(facts["code"], facts["what"], facts["hint"], facts["modality"], Where(**where) if where else None)


class Sink:
    """A folder that receives the files of a run.

    Args:
        folder: created when missing.
        inputs: all of the run, in the order of the manifest.
        config_hash: identifies the extraction config in every file.
        version: of emopipe.
        skipped: files beside the inputs that are not recordings.
        store: holds what was measured, for the pages; None: pages without curves.

    Raises:
        OutputError: when the folder cannot be made or written to; CorrectionsError when corrections that were applied
            to the results of an earlier run cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        inputs: Sequence[Path],
        config_hash: str,
        version: str,
        skipped: Mapping[Path, Reason] | None = None,
        store: Store | None = None,
    ) -> None:
        self.folder = folder
        self.store = store
        self._skipped = dict(skipped or {})
        self._config_hash = config_hash
        self._version = version
        self._stems = stems(inputs)
        self._entries: dict[Path, dict[str, Any]] = {path: _entry(path, "pending", config_hash) for path in inputs}
        self._columns: dict[Path, list[str]] = {}
        self._timings: dict[Path, Mapping[str, float]] = {}
        self._noted = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)
        except OSError as error:
            raise unwritable(folder, error) from None
        self._corrections = read_kept(folder)
        #: How many corrections of earlier results fit no utterance of these.
        self.lost = 0
        self._put(MANIFEST, self._manifest())

    def keep(self, path: Path, entry: Mapping[str, Any]) -> None:
        """Take over an input's entry of an earlier manifest, and its files as they lie there."""
        self._entries[path] = dict(entry)
        if entry["outputs"]:
            self._stems[path] = entry["outputs"]
            self._columns[path] = columns_of(_stored(self.folder, self._stems[path]))

    def stem(self, path: Path) -> str:
        """The name of an input's files, without a suffix."""
        return self._stems[path]

    def write(self, result: FileResult) -> list[Path]:
        """Write a clip's JSON, CSV and HTML; a failed clip has none. Returns the paths."""
        path = result.media
        self._timings[path] = result.computed
        written: list[Path] = []
        if result.state != "failed":
            facts, stem = document(result, self._config_hash, self._version), self._stems[path]
            self.lost += len(attach(facts, stem, self._corrections, self._stems.values()))
            written = write_clip(self.folder, stem, facts, played(self.folder, facts), self._curves(facts))
            self._columns[path] = columns_of(facts)
        self._entries[path] = self._entry_of(result)
        if time.monotonic() - self._noted > KEPT_UP:
            self._noted = time.monotonic()
            self._put(MANIFEST, self._manifest())
        return written

    def finish(self) -> None:
        """Write what there is about the run as a whole.

        `manifest.json` and `summary.csv`: what became of every input; `utterances.csv`: every utterance of every clip;
        `timings.csv`: seconds of work.
        """
        self._put(MANIFEST, self._manifest())
        columns = list(_entry(Path(), "pending", ""))
        columns.insert(columns.index("reasons"), "reason_codes")
        skipped = [{**_entry(Path(one["media"]), "skipped", ""), **one} for one in self._skipped_files()]
        self._put("summary.csv", _csv(map(_summary_row, [*self._entries.values(), *skipped]), columns))
        columns = list(dict.fromkeys(name for path in self._entries for name in self._columns.get(path, [])))
        write_utterances(
            self.folder, {path: self._stems[path] for path in self._entries if path in self._columns}, columns
        )
        timings = (
            {"media": str(path), "stage": stage, "seconds": round(seconds, 3)}
            for path, stages in self._timings.items()
            for stage, seconds in stages.items()
        )
        self._put("timings.csv", _csv(timings, ["media", "stage", "seconds"]))

    def _entry_of(self, result: FileResult) -> dict[str, Any]:
        entry = _entry(result.media, result.state, self._config_hash)
        entry |= {
            "reasons": [reason_as_json(reason) for reason in result.reasons],
            "checkpoint": result.checkpoint,
            "utterances": len(result.utterances),
        }
        if result.state != "failed":
            entry |= {
                "outputs": self._stems[result.media],
                "duration": None if result.duration is None else round(result.duration, 3),
                "language": result.info.get("language"),
            }
        return entry

    def _manifest(self) -> str:
        facts = {
            "emopipe": self._version,
            "inputs": list(self._entries.values()),
            "skipped": self._skipped_files(),
        }
        return json.dumps(facts, indent=1, ensure_ascii=False) + "\n"

    def _skipped_files(self) -> list[dict[str, Any]]:
        return [{"media": str(path), "reasons": [reason_as_json(why)]} for path, why in sorted(self._skipped.items())]

    def _curves(self, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
        from emopipe.pipeline.report.curves import curves

        return curves(facts, self.store) if self.store is not None else []

    def _put(self, name: str, text: str) -> Path:
        return put(self.folder / name, text)


def write_clip(
    folder: Path, stem: str, facts: dict[str, Any], link: str, curves: Sequence[Mapping[str, Any]] | None = None
) -> list[Path]:
    """Write a clip's JSON, CSV and HTML. Returns the paths.

    Args:
        folder: of the run.
        stem: name of the files, without a suffix.
        facts: the clip's document.
        link: where the page finds the media, as an address.
        curves: for the page; None: those that it has.

    Raises:
        OutputError: a file cannot be written.
    """
    from emopipe.pipeline.report.clip_page import curves_on

    if curves is None:
        curves = curves_on(folder / f"{stem}.html")
    pages = {
        f"{stem}.json": json.dumps(facts, indent=1, ensure_ascii=False) + "\n",
        f"{stem}.csv": _csv(map(flat_row, facts["utterances"]), columns_of(facts)),
        f"{stem}.html": render_page(facts, link, name=stem, curves=curves),
    }
    return [put(folder / name, text) for name, text in pages.items()]


def write_utterances(folder: Path, stems: Mapping[Path, str], columns: Sequence[str]) -> Path:
    """Write `utterances.csv`: every utterance of every clip, read back from the clips' documents. Returns its path.

    Args:
        folder: of the run.
        stems: input -> name of its files.
        columns: of the clips' tables.

    Raises:
        OutputError: it cannot be written.
    """
    rows = (
        {"media": str(path), **flat_row(row)}
        for path, stem in stems.items()
        for row in _stored(folder, stem)["utterances"]
    )
    return put(folder / "utterances.csv", _csv(rows, ["media", *columns]))


def columns_of(facts: Mapping[str, Any]) -> list[str]:
    """The columns of the table of a clip."""
    return list(dict.fromkeys(name for row in facts["utterances"] for name in flat_row(row)))


def _stored(folder: Path, stem: str) -> dict[str, Any]:
    """A clip's document, read back."""
    facts: dict[str, Any] = json.loads((folder / f"{stem}.json").read_text("utf-8"))
    return facts


def played(folder: Path, facts: Mapping[str, Any]) -> str:
    """What the page of a clip plays, as an address: a copy beside it, or the recording; "" for nothing."""
    copy = facts.get("privacy", {}).get("media")
    return media_link(folder, Path(facts["media"])) if copy is None else quote(copy)


def hidden(facts: Mapping[str, Any]) -> list[str]:
    """What is hidden in a clip's document, in words."""
    privacy = facts.get("privacy")
    if privacy is None:
        return []
    parts = ["names are replaced by pseudonyms"] if privacy["pseudonyms"] else []
    parts += [f"{' and '.join(privacy['redacted'])} are left out of the words"] if privacy["redacted"] else []
    if privacy["media"] is not None:
        parts.append("the faces are blurred in what is played" if privacy["media"] else "nothing is played")
    return [*parts, *(["the pitch of the sound is shifted"] if privacy["pitch"] else [])]


def media_link(folder: Path, media: Path) -> str:
    """Where pages in a folder find the media, as an address."""
    try:
        relative = os.path.relpath(media.resolve(), folder.resolve())
    except ValueError:  # on another drive
        return media.resolve().as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))


def put(path: Path, text: str) -> Path:
    """Write a page or table, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        write_atomic(path, text)
    except OSError as error:
        raise unwritable(path, error) from None
    return path


def _entry(path: Path, state: str, config_hash: str) -> dict[str, Any]:
    """An input in the manifest."""
    return {
        "media": str(path),
        "state": state,
        "reasons": [],
        "outputs": None,
        "duration": None,
        "utterances": 0,
        "language": None,
        "checkpoint": None,
        "config_hash": config_hash,
    }


def read_manifest(folder: Path) -> dict[Path, dict[str, Any]]:
    """What an earlier run into the folder says of its inputs.

    Raises:
        InputNotFound: when there was none, OutputError when its manifest cannot be used.
    """
    with _opened_manifest(folder) as manifest:
        return {Path(entry["media"]): {**_entry(Path(), "pending", ""), **entry} for entry in manifest["inputs"]}


def has_pseudonyms(folder: Path) -> bool:
    """Whether the results of an earlier run have pseudonyms, by the first of them that can be read.

    Raises:
        InputNotFound: when there was none, OutputError when its manifest cannot be used.
    """
    return next((bool(facts.get("privacy", {}).get("pseudonyms")) for facts in _documents(folder)), False)


def names_of_people(folder: Path) -> set[str]:
    """The names of people in the results of an earlier run.

    Raises:
        InputNotFound: when there was none, OutputError when its manifest cannot be used.
    """
    return {str(person.get("name")) for facts in _documents(folder) for person in facts.get("people", ())}


def _documents(folder: Path) -> Iterator[dict[str, Any]]:
    """The documents of an earlier run that can be read."""
    for entry in read_manifest(folder).values():
        with suppress(OSError, ValueError):
            facts = json.loads((folder / f"{entry['outputs']}.json").read_text("utf-8"))
            if isinstance(facts, dict):
                yield facts


def read_skipped(folder: Path) -> dict[Path, Reason]:
    """The files that an earlier run into the folder passed over, and why.

    Raises:
        InputNotFound: when there was none, OutputError when its manifest cannot be used.
    """
    with _opened_manifest(folder) as manifest:
        skipped = manifest.get("skipped", ())
        return {Path(entry["media"]): reason_from_json(entry["reasons"][0]) for entry in skipped}


@contextmanager
def _opened_manifest(folder: Path) -> Iterator[dict[str, Any]]:
    path = folder / MANIFEST
    try:
        yield json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputNotFound("no earlier run has left a manifest here", path=path) from None
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise OutputError(f"the manifest of the earlier run cannot be used: {error}", path=path) from None


def stems(inputs: Iterable[Path]) -> dict[Path, str]:
    """A name for the outputs of each input: its stem, with a hash of its path where that is too long or not unique.

    Which of several inputs get a hash does not depend on their order: all do.
    """
    inputs = list(inputs)
    counts = Counter([*map(_folded, (path.stem for path in inputs)), *RESERVED])
    return {path: path.stem if _usable(path.stem, counts) else _hashed(path) for path in inputs}


def _usable(stem: str, counts: Mapping[str, int]) -> bool:
    return counts[_folded(stem)] == 1 and len(os.fsencode(stem)) <= LONGEST_STEM


def _folded(stem: str) -> str:
    """As file systems compare names that know no upper case or write accents in two ways."""
    return unicodedata.normalize("NFC", stem).casefold()


def _hashed(path: Path) -> str:
    digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]
    short = os.fsencode(path.stem)[:LONGEST_STEM].decode("utf-8", "ignore")
    return f"{short}-{digest}"


def _summary_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An input in `summary.csv`: its reasons in words, and their codes."""
    reasons = [reason_from_json(facts) for facts in entry["reasons"]]
    return {
        **entry,
        "reason_codes": "; ".join(reason.code for reason in reasons),
        "reasons": "; ".join(map(str, reasons)),
    }


def unwritable(path: Path, error: OSError) -> EmopipeError:
    """The error of an output that cannot be written."""
    hint = "Free some space or name another folder with --out; what was computed is kept, run again"
    return OutputError(f"output cannot be written: {error.strerror}", path=path, hint=hint)


def flat_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row without nesting: `probability_anger`, `weight_face`, `absent_text`, ..."""
    flat: dict[str, Any] = {}
    singular = {"probabilities": "probability", "weights": "weight", "absent": "absent", "quality": "quality"}
    for name, value in row.items():
        if name in singular:
            flat |= {f"{singular[name]}_{key}": inner for key, inner in value.items()}
        elif name == "unverified_weights" and value:
            flat[name] = "; ".join(value)
        elif name not in ("unimodal", "without", "corrections", "unverified_weights"):
            flat[name] = value
    return flat | corrected_columns(row)


def _csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows({name: _cell(name, value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(name: str, value: object) -> object:
    """A cell; what people have written begins with an apostrophe where a spreadsheet would take it for a formula."""
    is_formula = name.startswith("corrected_") and isinstance(value, str) and value.startswith(tuple("=+-@\t\r"))
    return f"'{value}" if is_formula else value


def render_page(
    facts: dict[str, Any],
    media_link: str,
    *,
    name: str | None = None,
    curves: Sequence[Mapping[str, Any]] = (),
    server: str | None = None,
) -> str:
    """A self-contained HTML page on which the clip is looked at and corrected.

    Args:
        facts: the clip's document.
        media_link: address from which the page plays the recording.
        name: of the clip's files, without suffix; None: the recording's.
        curves: of :func:`~emopipe.pipeline.report.curves.curves`.
        server: address at which a server saves corrections; None: the page saves them as a file.
    """
    from emopipe.pipeline.report.clip_page import page_data
    from emopipe.pipeline.report.codes import explained
    from emopipe.pipeline.report.pages import colours, render
    from emopipe.pipeline.report.rankings import changed_without, least_certain, said_and_shown

    labels = sorted({label for row in facts["utterances"] for label in row["probabilities"]})
    ends = [row["end"] for row in facts["utterances"]]
    duration = facts["duration"] or max(ends, default=0) or 1
    reasons = [reason_from_json(reason) for reason in facts["reasons"]]
    absent = [code for row in facts["utterances"] for code in row["absent"].values()]
    return render(
        "clip.html",
        facts=facts,
        reasons=reasons,
        codes=explained([*(reason.code for reason in reasons), *absent]),
        media_link=media_link,
        privacy=hidden(facts),
        duration=duration,
        data=page_data(
            facts, labels, colours(labels), duration, name=name, curves=curves, link=media_link, server=server
        ),
        labels=labels,
        colours=colours(labels),
        changed_without=changed_without,
        said_and_shown=said_and_shown(facts["utterances"]),
        least_certain=least_certain(facts["utterances"]),
    )

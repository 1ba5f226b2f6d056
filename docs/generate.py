"""Write the reference pages of the documentation from the code, so that they cannot tell anything else.

    python docs/generate.py

The pages are committed, so that they can be read where the repository is; a test makes them again and compares.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

DOCS: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from emopipe import options  # noqa: E402
from emopipe.errors import REASONS, EmopipeError, Reason, Where, error_types  # noqa: E402
from emopipe.extractors.face import mediapipe, pyfeat, table  # noqa: E402
from emopipe.pipeline import records  # noqa: E402
from emopipe.pipeline.report import outputs  # noqa: E402

NOTICE: Final = "<!-- Made by docs/generate.py: change the code that this page tells of, and run that. -->"


def main() -> None:
    """Write every page."""
    for name, page in pages().items():
        path = DOCS / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(page, "utf-8")


def pages() -> dict[str, str]:
    """Name below this folder -> text."""
    makers: dict[str, Callable[[], Iterable[str]]] = {
        "errors.md": errors_page,
        "schema.md": schema_page,
        "settings.md": settings_page,
        "weights.md": weights_page,
        "reference/cli.md": command_line_page,
        "reference/corpora.md": corpora_page,
        "reference/options.md": options_page,
    }
    return {name: "\n\n".join(_headed(maker())) + "\n" for name, maker in makers.items()}


def _headed(blocks: Iterable[str]) -> Iterator[str]:
    title, *rest = blocks
    yield from (title, NOTICE, *rest)


# Pieces of Markdown


def prose(text: str) -> str:
    """A paragraph in one line."""
    return " ".join(text.split())


def grid(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")


def code(text: object) -> str:
    """Text in the type of code; nothing for nothing."""
    return f"`{text}`" if str(text) else ""


def sentence(text: str) -> str:
    """The text with a capital and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".") if text else ""


def marked(text: str) -> str:
    """The words of a docstring or message as Markdown: roles of Sphinx, quoted values and options become code."""
    text = re.sub(r":\w+:`~?\.?(?:emopipe\.)?([^`]*)`", r"`\1`", text).replace("``", "`")
    pieces = text.split("`")
    pieces[::2] = [re.sub(r'("[^"]*"|(?<!\S)--[a-z][\w-]*)', r"`\1`", piece) for piece in pieces[::2]]
    return "`".join(pieces)


def summary(documented: object) -> str:
    """The first paragraph of a docstring."""
    return marked(" ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split()))


def attributes(documented: object) -> dict[str, str]:
    """What a docstring says of each of a class's attributes."""
    _, _, text = (inspect.getdoc(documented) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in text.split("\n"):
        if line and not line.startswith("    "):
            break
        start = re.match(r"    ([a-z_][\w, ]*): (.*)", line)
        if start and not line.startswith("     "):
            names = [name.strip() for name in start[1].split(",")]
            found |= dict.fromkeys(names, start[2])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return {name: marked(words) for name, words in found.items()}


# Types in words


#: Record -> the section of the schema that tells of it.
SECTIONS: Final[dict[Any, str]] = {
    records.Person: "people",
    records.TurnResult: "turns",
    records.UtteranceResult: "utterances",
    records.Correction: "corrections",
    records.Privacy: "privacy",
    Reason: "reasons",
    Where: "where",
    records.MediaInfo: "info",
}


def type_words(hint: Any) -> str:
    """A type as a reader of JSON knows it."""
    hint = _plain(hint)
    if hint in SECTIONS:
        return f"[object](#{SECTIONS[hint]})"
    names = {str: "text", Path: "text", int: "integer", float: "number", bool: "true or false", type(None): "null"}
    if hint in names:
        return names[hint]
    return "[code](errors.md#reasons)" if hint == records.AbsenceReason else _composed(get_origin(hint), get_args(hint))


def _composed(origin: Any, inside: Sequence[Any]) -> str:
    """A type that is made of others, or of values."""
    if origin is Literal:
        return " or ".join(code(f'"{one}"') for one in inside)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_words(one) for one in inside))
    if issubclass(origin, Mapping):
        return f"object: {type_words(inside[0])} -> {type_words(inside[1])}"
    return f"list of {type_words(inside[0])}"


def _plain(hint: Any) -> Any:
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return hint


def unit(hint: Any) -> str:
    """The unit that a type carries, wherever in it."""
    for one in get_args(hint):
        if isinstance(one, records.Unit):
            return one.name
    return next((found for one in get_args(hint) if (found := unit(one))), "")


def bounds(hint: Any) -> str:
    """What a number may be, where its type says so."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(filter(None, map(bounds, get_args(hint))))
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    limits = {
        name: getattr(one, name)
        for one in (get_args(hint) if get_origin(hint) is Annotated else ())
        for name in words
        if isinstance(getattr(one, name, None), int | float)
    }
    if "ge" in limits and limits["ge"] == limits.get("le"):
        return f"{limits['ge']:.12g}"
    return ", ".join(f"{words[name]} {limit:.12g}" for name, limit in limits.items())


# Error codes and reasons


def errors_page() -> Iterator[str]:
    """Every error type and every reason, a section each."""
    yield "# Codes of errors and reasons"
    yield prose(
        """
        A file that gives nothing has an *error* with a code `EMO-...`; what makes a result incomplete or doubtful
        without making it fail is a *reason* with a name such as `no_face`. Both stand in the terminal, in the JSON
        of a clip, in `manifest.json` and in `summary.csv` (column `reason_codes`), and the pages of results explain
        those that they show. A code never changes its meaning.
        """
    )
    yield prose(
        """
        In Python every error is a type below `emopipe.EmopipeError` and is defined in `emopipe.errors`; it has
        `code`, `what`, `path` and `hint`. The command line ends with 0 when all files are done, 1 when some failed,
        2 when the command, a table or a checkpoint must be corrected, and 3 when the machine lacks a weight, a
        library or a device.
        """
    )
    yield "## Errors"
    for kind in error_types():
        yield f"### {kind.code}"
        yield f"`{kind.__name__}`{_bases(kind)}. {summary(kind)}"
        yield f"{sentence(marked(kind.advice))} {_consequence(kind)}"
    yield "## Reasons"
    yield prose(
        """
        Why a result is `degraded`. Those marked *absence* also say why an utterance lacks a modality (`absent` in
        the JSON); the prediction then rests on the others, and without any there is none.
        """
    )
    for name, reason in REASONS.items():
        yield f"### {name}"
        yield f"{'*Absence.* ' if reason.absence else ''}{sentence(reason.meaning)} {sentence(marked(reason.advice))}"


def _bases(kind: type[EmopipeError]) -> str:
    above = [one.__name__ for one in kind.__mro__[1:] if issubclass(one, EmopipeError) and one is not EmopipeError]
    return ", a kind of " + " and ".join(map(code, above)) if above else ""


def _consequence(kind: type[EmopipeError]) -> str:
    ends = "Every other file would fail alike, so a run over several ends." if kind.stops_all else ""
    return f"{ends} Exit code {kind.exit_code} where it ends the command.".strip()


# The outputs

#: Key of the JSON document or of the manifest that no record describes -> what it is.
OWN_KEYS: Final = {
    "emopipe": ("text", "version that wrote the file"),
    "config_hash": (
        "text",
        "identifies the extraction configuration; files with different ones should not be compared",
    ),
    "notice": ("text", "what the predictions are not"),
    "outputs": ("text or null", "`STEM` of the files about it; null when it failed"),
    "language": ("text or null", "ISO 639-1 code of what is spoken"),
}
#: File -> what it holds.
FILES: Final = {
    "`STEM.json`": "everything about a clip",
    "`STEM.csv`": "its utterances, a row each",
    "`STEM.html`": "its page: timeline, words, weights; plays the video from where it lies",
    "`manifest.json`": "every input with its state and reasons; kept up to date while the run goes on",
    "`summary.csv`": "the same as a table",
    "`utterances.csv`": "every utterance of every clip, a row each",
    "`summary.html`": "the page about all files, where there are several",
    "`tables/`": "the tables of that page as CSV; see [Compare recordings](across.md)",
    "`timings.csv`": "seconds of work for each input and stage",
    "`applied_corrections.json`": "what people corrected, see [Corrections](corrections.md); only where they did",
    "`STEM.blurred.mp4`": "the copy that the page plays with `--blurred`, see [Privacy](privacy.md)",
    "`STEM.srt`, `STEM.eaf`, ...": "the formats of `--formats`, see [Export](export.md)",
}
DATASET: Final = {
    "manifest.parquet": "a row per utterance: `id`, `media`, `start`, `end`, `speaker`, `role`, `overlap`, `split`, "
    "`words`, the label columns of the table, and for each modality its key (null when absent), `MODALITY_absent` (a "
    "code) and `MODALITY_quality` (0..1)",
    "text.parquet, face.parquet, voice.parquet": "feature sequences: `key`, `start` and `end` of each step in seconds, "
    "`features`; the names of the features are in the file's metadata",
    "config.toml": "the extraction configuration, and the versions of what measured",
    "failures.csv": "rows that gave nothing, and why; only where there are some",
    "reasons.csv": "what is doubtful about the labels table and the recordings, or was chosen in reading them: `code`, "
    "`reason`, `hint`, and of recordings their `id`, `start` and `end` in seconds where it concerns a place; "
    "`emopipe extract` and `emopipe inspect` show how often each code occurs, with an example",
}
GROUPS: Final = {
    "time": "seconds on the media clock",
    "track": "number of the face track: one face followed through the clip",
    **dict.fromkeys(table.BOX, "the face's box: left, top, right, bottom"),
    "quality": "how well the face can be measured: its height, how frontal it is, how much of it is in the picture",
    **dict.fromkeys(
        table.POSE,
        "head pose; pitch grows downwards, yaw towards the subject's left, roll towards the subject's right shoulder",
    ),
    **dict.fromkeys(table.GAZE, "direction of gaze, with the signs of the head pose"),
    **dict.fromkeys(table.ACTION_UNITS, "facial action units; MediaPipe's are proxies made of blendshapes"),
    **dict.fromkeys(table.BLENDSHAPES, "ARKit's blendshapes"),
    **dict.fromkeys(table.EMOTIONS, "what the face alone looks like: probabilities"),
    **dict.fromkeys(table.AFFECT, "valence and arousal of the face, by py-feat"),
    **dict.fromkeys(table.MESH_COMPONENTS, "shape of the face without pose: components of the landmark mesh"),
    **dict.fromkeys(table.EXPRESSION, "components of what the expression encoder sees in the pixels of the face"),
}


def schema_page() -> Iterator[str]:
    """The files of a run and of a data set, with types and units."""
    yield "# Schema of the outputs"
    yield prose(
        """
        Times are seconds on the media clock, which starts with the recording; they are rounded to milliseconds,
        shares and probabilities to four places. Text is UTF-8. All files but `timings.csv` depend on the inputs,
        the checkpoint and the configuration alone: the same run leaves the same bytes.
        """
    )
    yield "## Files of a run"
    yield grid(("file", "holds"), FILES.items())
    yield prose(
        """
        `STEM` is the input's name without its suffix, with a hash where two inputs share it. A failed input has no
        files of its own; its reason is in the manifest.
        """
    )
    result = records.FileResult(Path("a.mp4"), "ok", [], privacy=records.Privacy(pseudonyms=True))
    yield "## STEM.json"
    yield _keys(outputs.document(result, "", ""), records.FileResult)
    for record, title in SECTIONS.items():
        yield f"### {title}"
        if dataclasses.is_dataclass(record):
            yield summary(record)
            yield _fields(record)
        else:
            yield " ".join((inspect.getdoc(record) or "").split())
    yield "## STEM.csv and utterances.csv"
    yield prose(
        """
        A row per utterance with the columns of `utterances` above but `unimodal`, `without` and `corrections`; what is
        an object there becomes a column for each of its keys. What people corrected has columns of its own, see
        [Corrections](corrections.md#apply).
        """
    )
    yield grid(("in JSON", "columns"), _flattened())
    yield "`utterances.csv` has the column `media` before them."
    yield "## manifest.json"
    yield "An object with `emopipe` (version that wrote it) and `inputs`, a list with an entry for each input:"
    states = '`"pending"` while it waits, then `"ok"`, `"degraded"` or `"failed"`'
    own = {"utterances": ("integer", "how many there are"), "state": ("text", states)}
    yield _keys(outputs._entry(Path(), "pending", ""), records.FileResult, own)
    yield prose(
        """
        `summary.csv` has the same columns, with the reasons in words, and their codes in `reason_codes`, separated by
        `; `. `timings.csv` has the columns `media`, `stage` and `seconds`.
        """
    )
    yield "## Faces"
    yield prose(
        """
        `result.faces.to_pandas()` has a row for each sampled frame and face, in the columns below, and `person`:
        the name of the speaker whose face it is, empty for others. Columns that the backend does not measure are
        left out there, and null in the table that plugins fill (`emopipe.extractors.face.table.SCHEMA`).
        """
    )
    yield grid(("columns", "unit", "type", "measured by", "what"), _face_columns())
    yield "## Data sets"
    yield "`emopipe extract` leaves a folder with"
    yield grid(("file", "holds"), [(", ".join(map(code, name.split(", "))), words) for name, words in DATASET.items()])


def _keys(
    document: Mapping[str, Any], record: type, own: Mapping[str, tuple[str, str]] = types.MappingProxyType({})
) -> str:
    """The keys of an object that tells of a record; `own` are those with another meaning than the record's."""
    hints, told = get_type_hints(record, include_extras=True), attributes(record)
    rows = []
    for name in document:
        if name in hints and name not in own:
            rows.append((code(name), type_words(hints[name]), unit(hints[name]), in_json(told[name])))
        else:
            kind, words = {**OWN_KEYS, **own}[name]
            rows.append((code(name), kind, "", sentence(words)))
    return grid(("key", "type", "unit", "what"), rows)


def _fields(record: type) -> str:
    hints, told = get_type_hints(record, include_extras=True), attributes(record)
    rows = []
    for name in (one.name for one in dataclasses.fields(record)):
        words = in_json(told[name])
        if record is records.UtteranceResult and name not in outputs.row_of(_utterance()):
            words += " Left out when there are none."
        if record is records.Correction and name not in records.Correction("").as_json():
            words += " Left out when it is not given."
        rows.append((code(name), type_words(hints[name]), unit(hints[name]), words))
    return grid(("key", "type", "unit", "what"), rows)


def _utterance() -> records.UtteranceResult:
    """One of which nothing is known."""
    maps: tuple[dict[str, Any], ...] = ({}, {}, {}, {}, {})
    return records.UtteranceResult(0, 0, None, None, 0, "", None, None, *maps, None, True)


def in_json(words: str) -> str:
    """What a docstring says of a Python value, said of its JSON."""
    return sentence(words.replace("None", "null").replace("()", "[]"))


def _flattened() -> Iterator[tuple[str, str]]:
    nested = {"probabilities": {"CLASS": 1.0}, "weights": {"MODALITY": 1.0}, "absent": {"MODALITY": "no_face"}}
    nested["quality"] = {"MODALITY": 1.0}
    for name, inside in nested.items():
        yield code(name), ", ".join(map(code, outputs.flat_row({name: inside})))


def _face_columns() -> Iterator[tuple[str, str, str, str, str]]:
    measured = {"mediapipe": mediapipe.MEASURED, **{f"pyfeat:{k}": names for k, names in pyfeat.MEASURED.items()}}
    always = {"time", "track", "quality", *table.BOX}
    for what in dict.fromkeys(GROUPS.values()):
        fields = [one for one in table.SCHEMA if GROUPS[one.name] == what]
        names = [one.name for one in fields]
        by = "all" if set(names) <= always else ", ".join(_measured_by(names, measured))
        facts = {(one.metadata or {}).get(b"unit", b"").decode() for one in fields}
        shown = names if len(names) <= 20 else [names[0], names[1], "...", names[-1]]
        listed = ", ".join(name if name == "..." else code(name) for name in shown)
        count = f" ({len(names)})" if len(names) > 4 else ""
        yield listed + count, " ".join(facts), str(fields[0].type), by, sentence(what)


def _measured_by(names: Sequence[str], measured: Mapping[str, Iterable[str]]) -> Iterator[str]:
    for backend, columns in measured.items():
        count = len(set(names) & set(columns))
        if count:
            yield backend if count == len(names) else f"{backend} ({count} of them)"


# Settings


def settings_page() -> Iterator[str]:
    """What TOML files may hold: extraction, training, models."""
    from emopipe.api import training_config
    from emopipe.models.registry import MODELS
    from emopipe.pipeline.config import ExtractionConfig

    yield "# Settings"
    yield prose(
        """
        Files for `--config` are TOML. The tables `[face]`, `[voice]`, `[speech]`, `[text]` and `[people]` decide
        what features mean (`emopipe run`, `emopipe extract`); a checkpoint seals those that it was trained on, and
        `emopipe config show` prints them. The tables `[train]` and `[model]` decide what is trained and how
        (`emopipe train`, `evaluate`, `compare`, `ablate`). One file may hold all; what is left out keeps its
        default, and options of a command win.
        """
    )
    yield "## Extraction"
    extraction = ExtractionConfig()
    for one in dataclasses.fields(extraction):
        yield from _settings(f"[{one.name}]", getattr(extraction, one.name))
    yield "## Training"
    yield from _settings("[train]", training_config(None, {}), leave_out=("model", "options"))
    yield "## Models"
    yield prose(
        """
        The table `[model]` has a `name` and the options of that model. Names that share a class differ in their
        presets: `emopipe.models.registry` lists them.
        """
    )
    seen: list[type] = []
    for name, entry in MODELS.items():
        if type(entry.preset) not in seen:
            seen.append(type(entry.preset))
            yield from _settings(f'[model] name = "{name}"', entry.preset)


def _settings(title: str, preset: Any, leave_out: Sequence[str] = ()) -> Iterator[str]:
    told: dict[str, str] = {}
    for kind in reversed(type(preset).__mro__):
        told |= attributes(kind) if kind is not object else {}
    hints = get_type_hints(type(preset), include_extras=True)
    rows = [
        (code(one.name), code(_toml(getattr(preset, one.name))), bounds(hints[one.name]), told.get(one.name, ""))
        for one in dataclasses.fields(preset)
        if one.name not in leave_out
    ]
    header = ("setting", "default", "bounds", "what")
    if not any(row[2] for row in rows):
        header, rows = (*header[:2], header[3]), [(*row[:2], row[3]) for row in rows]
    yield f"### {code(title)}"
    yield summary(type(preset))
    if rows:
        yield grid(header, rows)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else "" if value is None else str(value)


# Weights


def weights_page() -> Iterator[str]:
    """The catalogue of weights, with licences and intended uses."""
    from emopipe.pipeline import weights

    entries = [weights.entry(name) for name in weights.names()]
    yield "# Weights and licences"
    yield prose(
        """
        Networks that extractors and models load. Those marked *embedded* need no hub and no account: `emopipe
        models fetch` brings them at once, and the first run brings what it needs. Each file's SHA-256 is checked;
        where none is known, what comes first is held against later, and results call the weight unverified.
        `emopipe models list` shows what is on this machine, `emopipe models verify` checks it, `EMOPIPE_CACHE`
        moves it, and `EMOPIPE_WEIGHTS` names a folder with weights of your own. `--offline` or `EMOPIPE_OFFLINE=1`
        forbids any use of the network.
        """
    )
    yield prose(
        """
        The licences are those of the weights. The terms of the checkpoints that come with emopipe are their own:
        see [Limits and intended use](limits.md).
        """
    )
    for purpose in dict.fromkeys(one.purpose for one in entries):
        some = [one for one in entries if one.purpose == purpose]
        yield f"## {purpose.split(':')[0].split(', by ')[0]}{_backend(purpose)}"
        yield grid(("name", "licence", "download", "from", "what"), [_weight(one) for one in some])
        uses = dict.fromkeys(one.intended_use for one in some)
        for use in uses:
            names = [code(one.name) for one in some if one.intended_use == use]
            yield f"- {sentence(use)}" + ("" if len(uses) == 1 else f" ({', '.join(names)})")


def corpora_page() -> Iterator[str]:
    """Published corpora, where to ask for them, and how their files lie."""
    from emopipe.pipeline.datasets.corpora import registry

    known = [registry.corpus(name) for name in registry.BUILT_IN]
    yield "# List of corpora"
    yield prose(
        """
        What `emopipe corpus` and `emopipe extract --corpus` know by name; how to use them: [Published
        corpora](../corpora.md). Terms are those that their authors state: read them before you ask.
        """
    )
    header = ("name", "corpus", "language", "modalities", "labels", "rows")
    yield grid(
        header, [(code(one.name), one.title, one.language, one.modalities, one.labels, _sizes(one)) for one in known]
    )
    for one in known:
        yield f"## {one.name}"
        yield f"- Licence: {one.licence}\n- Ask at: {one.source}\n- Files: {one.layout}"


def _sizes(corpus: Any) -> str:
    return ", ".join(f"{split} {count:,}".strip().replace(",", " ") for split, count in corpus.counts.items())


def _backend(purpose: str) -> str:
    return f", by {purpose.split(', by ')[1]}" if ", by " in purpose else ""


def _weight(entry: Any) -> tuple[str, str, str, str, str]:
    from emopipe.pipeline.weights import Url
    from emopipe.pipeline.weights.sources import HUB

    names = ", ".join(map(code, (entry.name, *entry.aliases)))
    licence = re.sub(r"LicenseRef-(\S+)", lambda found: found[1].replace("-", " "), entry.licence)
    size = f"{entry.download / 1e6:,.0f} MB".replace(",", " ") if entry.download else ""
    source = entry.sources[0]
    origin = "package index" if not isinstance(source, Url) else "hub" if source.base.startswith(HUB) else "its makers"
    embedded = ", embedded" if entry.embedded else ""
    unhashed = "; no hash is known" if entry.unhashed else ""
    return names, licence, size, origin + embedded, entry.title + unhashed


# The command line


def command_line_page() -> Iterator[str]:
    """Every command with its arguments and options."""
    import typer

    from emopipe.pipeline.cli.app import COMMANDS, app

    root: Any = typer.main.get_command(app)
    yield "# Command line"
    yield sentence(root.help)
    yield prose(
        """
        Every command has `--help`. Those that take `--json` print JSON lines for programs; `--debug` shows
        tracebacks. Exit codes: 0 all done, 1 some files failed (the others are there), 2 the command, a table or a
        checkpoint must be corrected, 3 a missing weight, library or device.
        """
    )
    yield _options_table(root.params)
    leaves = list(_leaves("emopipe", root))
    for group in (*COMMANDS,):
        yield f"## {group}"
        for name, command, panel in leaves:
            if panel == group:
                yield from _command(name, command)


def _leaves(name: str, command: Any, panel: str = "") -> Iterator[tuple[str, Any, str]]:
    for word, inner in sorted(getattr(command, "commands", {}).items(), key=lambda item: _place(command, item[0])):
        group = panel or str(inner.rich_help_panel)
        if hasattr(inner, "commands"):
            yield from _leaves(f"{name} {word}", inner, group)
        else:
            yield f"{name} {word}", inner, group


def _place(command: Any, word: str) -> int:
    return list(command.commands).index(word)


def _command(name: str, command: Any) -> Iterator[str]:
    arguments = [one for one in command.params if not _is_option(one)]
    shown = [one for one in command.params if _is_option(one)]
    yield f"### {name}"
    yield "\n".join(line.strip() for line in sentence(inspect.cleandoc(command.help or "")).split("\n"))
    words = [_argument(one) for one in arguments] + [f"{one.opts[0]} {_value(one)}" for one in shown if one.required]
    yield f"```text\n{' '.join([name, *words, '[OPTIONS]'])}\n```"
    if arguments:
        yield grid(("argument", "what"), [(code(one.name.upper()), _help(one)) for one in arguments])
    panels = dict.fromkeys(one.rich_help_panel for one in shown)
    for panel in panels:
        if panel:
            yield f"*{panel}*"
        yield _options_table([one for one in shown if one.rich_help_panel == panel])


def _is_option(parameter: Any) -> bool:
    return bool(parameter.opts[0].startswith("-"))


def _argument(parameter: Any) -> str:
    name = parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _value(parameter: Any) -> str:
    """What an option wants, in capitals; choices as they are typed."""
    hint = _plain(parameter.type_descriptor.annotation)
    inside = [one for one in get_args(hint) if one is not type(None)]
    if parameter.is_flag:
        return ""
    if get_origin(hint) is Literal:
        return "|".join(map(str, inside))
    hint = inside[0] if inside else hint
    names = {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH"}
    return names.get(hint, "TEXT")


def _options_table(shown: Sequence[Any]) -> str:
    rows = []
    for one in shown:
        flags = ", ".join(code(f"{flag} {_value(one)}".strip()) for flag in (*one.opts, *one.secondary_opts))
        default = "" if one.default in (None, False, ()) or one.required or one.default is ... else one.default
        rows.append((flags, "required" if one.required else code("on" if default is True else default), _help(one)))
    return grid(("option", "default", "what"), rows)


def _help(parameter: Any) -> str:
    limit = "" if getattr(parameter, "min", None) is None else f" At least {parameter.min:g}."
    return marked((parameter.help or "").replace("\\[", "[")) + limit


# Keywords of the front door


def options_page() -> Iterator[str]:
    """The keywords of the front door."""
    groups = {
        "Extraction": (options.ExtractionOptions, "run, extract"),
        "Work and store": (options.ExecutionOptions, "run, extract"),
        "Privacy": (options.PrivacyOptions, "run"),
        "Answers": (options.AnswerOptions, "run"),
        "Training": (options.TrainingOptions, "train, evaluate"),
        "Studies": (options.StudyOptions, "the commands compare and ablate"),
    }
    yield "# Keywords"
    yield prose(
        """
        Keywords of `emopipe.run`, `extract`, `train` and `evaluate` beside the parameters that stand in their
        signatures. They are the options of the commands: `limit_memory="8G"` is `--limit-memory 8G`.
        """
    )
    told: set[str] = set()
    for title, (group, functions) in groups.items():
        yield f"## {title}"
        yield f"For {functions}."
        hints = get_type_hints(group, include_extras=True)
        yield grid(("keyword", "type", "what"), [_keyword(name, hints[name]) for name in hints])
        told |= set(hints)
    public = {name for one in vars(options).values() if typing.is_typeddict(one) for name in one.__annotations__}
    assert public <= told, f"the page lacks {sorted(public - told)}"


def _keyword(name: str, hint: Any) -> tuple[str, str, str]:
    kind, option = get_args(hint)[0], next(one for one in get_args(hint) if isinstance(one, options.Option))
    least = "" if option.least is None else f" At least {option.least:g}."
    return code(name), _python_type(kind), marked(option.help) + least


def _python_type(hint: Any) -> str:
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(code(repr(one)) for one in inside)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_python_type(one) for one in inside))
    if inside:
        return f"{getattr(origin, '__name__', origin)} of {', '.join(_python_type(one) for one in inside)}"
    return str(getattr(hint, "__name__", hint))


if __name__ == "__main__":
    main()

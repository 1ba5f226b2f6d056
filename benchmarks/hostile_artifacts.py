"""Checkpoints, plugins' metadata and stores that nobody should have, and how `hostile.py` tries them."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

from hostile_trials import MODEL, Case, Judgement, judged, of_result

from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.execution.batch import find_inputs, run_files
from emopipe.pipeline.execution.engine import Here
from emopipe.pipeline.execution.jobs import prediction_job
from emopipe.pipeline.store.store import Store

SAMPLE: Final = Path(__file__).parent.parent / "samples" / "happy.mp4"
#: Values that a JSON file may hold and should not.
ODD_VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    0,
    -1,
    10**12,
    10**400,
    1e308,
    float("nan"),
    "",
    "../../etc",
    "\ud800",
    "x" * 100_000,
    [],
    [[]],
    {},
    {"a": {"b": []}},
)


def made(make: Callable[[], Any]) -> Judgement:
    """That something could be made."""
    make()
    return "ok", "", ""


def worst(*verdicts: Judgement) -> Judgement:
    """Of several judgements the worst."""
    order = ("ok", "refused", "internal")
    return max(verdicts, key=lambda verdict: order.index(verdict[0]), default=("ok", "", ""))


def damaged(rng: Random, data: bytes) -> bytes:
    """Bytes with bits turned round, cut off, replaced, repeated or gone."""
    at, size = rng.randrange(len(data) + 1), rng.choice([1, 8, 500])
    how = rng.choice(["flip", "cut", "noise", "hole", "double", "empty", "head"])
    if how == "flip":
        flipped = bytearray(data)
        for _ in range(rng.choice([1, 10, 1000])):
            if flipped:
                flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    return {
        "cut": data[:at],
        "noise": data[:at] + rng.randbytes(size) + data[at + size :],
        "hole": data[:at] + data[at + size :],
        "double": data + data,
        "empty": b"",
        "head": rng.randbytes(16) + data[16:],
    }[how]


def _changed(rng: Random, value: Any) -> Any:
    """A value of JSON with one entry, at any depth, that is odd, gone, or under another name."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        name = rng.choice(list(value))
        how = rng.random()
        if how < 0.15:
            return {key: one for key, one in value.items() if key != name}
        if how < 0.25:
            return {**value, "unknown": rng.choice(ODD_VALUES)}
        return {**value, name: _changed(rng, value[name])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return [*value[:at], _changed(rng, value[at]), *value[at + 1 :]]
    return rng.choice(ODD_VALUES)


class CheckpointTrial:
    """Checkpoints, opened as `emopipe run` and `emopipe.load` open them; some are sealed anew after the change."""

    def __init__(self, folder: Path) -> None:
        self._store = Store(Path(tempfile.mkdtemp(prefix="store-", dir=folder)))
        self.attempt(Case("sample", MODEL))

    @staticmethod
    def cases(rng: Random, files: int, whole: float, folder: Path) -> Iterator[Case]:
        """Change the shipped checkpoint."""
        from emopipe.models.sealed import SHIPPED, identity

        for number in range(files):
            kind = rng.choice(["weights", "config", "entry", "sealed_entry", "sealed_weights"])
            target = folder / f"{number:04}-{kind}"
            shutil.copytree(SHIPPED / MODEL, target)
            weights, text = (target / "model.safetensors"), (target / "config.json")
            if kind in ("weights", "sealed_weights"):
                weights.write_bytes(damaged(rng, weights.read_bytes()))
            if kind == "config":
                text.write_bytes(damaged(rng, text.read_bytes()))
            if kind in ("entry", "sealed_entry", "sealed_weights"):
                config = json.loads(text.read_text("utf-8"))
                config = config if kind == "sealed_weights" else _changed(rng, config)
                if kind != "entry" and isinstance(config, dict):
                    plain = {k: v for k, v in config.items() if k not in ("format", "id", "weights_sha256")}
                    config["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
                    spec = json.dumps(plain, indent=1, ensure_ascii=False)
                    with suppress(UnicodeEncodeError):
                        config["id"] = identity(weights.read_bytes(), spec)
                text.write_text(json.dumps(config), "utf-8", errors="surrogatepass")
            yield Case(kind, str(target))

    def attempt(self, case: Case) -> Judgement:
        """See :class:`~hostile_trials.Trial`."""
        return judged(lambda: self._opened(case.path))

    def _opened(self, path: str) -> Judgement:
        import emopipe

        return worst(
            judged(lambda: made(lambda: prediction_job(path, self._store, device="cpu", offline=True))),
            judged(lambda: made(lambda: emopipe.load(path, device="cpu", offline=True))),
        )


#: Modules that plugins bring: what is wrong with each.
_MODULES: Final = (
    "def create(settings, locate, device): return settings",
    "create = None",
    "create = 3",
    "import nowhere",
    "raise SystemExit(3)",
    "raise RuntimeError('no')",
    "def create(:",
    "def create(): pass",
    "def create(*_): raise SystemExit(1)",
    "def create(*_): raise MemoryError",
    "def create(*_): return 1 / 0",
    "from emopipe.extractors.contracts import Backend\ncreate = Backend",
    "class create: pass",
    "def f(): f()\nf()",
    "\0",
)
_ENTRIES: Final = (
    "{name} = {name}:create",
    "{name} = {name}",
    "{name} = {name}:create.more",
    "{name} = {name}:",
    "{name} = :create",
    "{name} =",
    "{name}",
    "{name} = {name}:create [extra]",
    "{name} = nowhere.at.all:create",
    "{name} = 1 2 3",
    "= {name}:create",
    "whisper = {name}:create",
    "\ud800 = {name}:create",
    "{name} = os:system",
)


class PluginTrial:
    """Other packages' metadata and modules, listed, examined and made as commands do."""

    def __init__(self, folder: Path) -> None:
        self.attempt(Case("sample", str(folder)))

    @staticmethod
    def cases(rng: Random, files: int, whole: float, folder: Path) -> Iterator[Case]:
        """Make packages."""
        from emopipe.pipeline.backends.registry import GROUPS, MODELS_GROUP

        groups = [*GROUPS.values(), MODELS_GROUP]
        for number in range(files):
            site, name = folder / f"{number:04}", f"hostile{number:04}"
            info = site / f"{rng.choice([name, name, '-', 'x' * 100])}-{rng.choice(['1.5', '', 'x', '1.0'])}.dist-info"
            info.mkdir(parents=True)
            lines = [f"[{rng.choice(groups)}]", *(rng.choice(_ENTRIES).format(name=name) for _ in range(2))]
            points = "\n".join(lines).encode("utf-8", "surrogatepass")
            about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n".encode()
            (info / "entry_points.txt").write_bytes(damaged(rng, points) if rng.random() < 0.3 else points)
            if rng.random() < 0.8:
                (info / "METADATA").write_bytes(damaged(rng, about) if rng.random() < 0.5 else about)
            (site / f"{name}.py").write_text(rng.choice(_MODULES), "utf-8")
            yield Case("plugin", str(site))

    def attempt(self, case: Case) -> Judgement:
        """See :class:`~hostile_trials.Trial`; of several refusals, the first is told."""
        sys.path.insert(0, case.path)
        try:
            return judged(self._listed)
        finally:
            sys.path.remove(case.path)

    def _listed(self) -> Judgement:
        from typer.testing import CliRunner

        from emopipe.models.registry import configure
        from emopipe.pipeline import doctor
        from emopipe.pipeline.backends import registry
        from emopipe.pipeline.cli.app import app

        doctor.checks()
        shown = CliRunner().invoke(app, ["models", "list", "--offline"])
        if shown.exception is not None and not isinstance(shown.exception, SystemExit):
            raise shown.exception
        verdicts: list[Judgement] = []
        settings = {name: one for table in ExtractionConfig().as_dict().values() for name, one in table.items()}
        for plugin in registry.plugins():
            if plugin.kind == "model":
                make: Callable[[], Any] = partial(configure, plugin.name)
            else:
                make = partial(registry.create, plugin.kind, plugin.name, settings, Path, "cpu")
            if not plugin.shadowed:
                verdicts.append(judged(partial(made, make)))
        return worst(*verdicts)


class StoreTrial:
    """Stores whose index or results were damaged: what a run makes of them is what it makes of none, or a reason."""

    def __init__(self, folder: Path) -> None:
        self._out, self._engine = folder / "out", Here()
        fresh = Path(tempfile.mkdtemp(prefix="whole-", dir=folder))
        with Store(fresh) as store:
            self._truth = self._run(store)
        if not (folder / "whole").exists():
            fresh.rename(folder / "whole")

    @staticmethod
    def cases(rng: Random, files: int, whole: float, folder: Path) -> Iterator[Case]:
        """Damage copies of a store that a run has filled."""
        StoreTrial(folder)
        for number in range(files):
            kind = rng.choice(["index", "table", "result", "result", "journal"])
            target = folder / f"{number:04}-{kind}"
            shutil.copytree(folder / "whole", target)
            index = target / "index.sqlite"
            if kind == "index":
                index.write_bytes(damaged(rng, index.read_bytes()))
            elif kind == "journal":
                for suffix in ("-wal", "-shm", "-journal"):
                    index.with_name(index.name + suffix).write_bytes(rng.randbytes(rng.choice([1, 32, 5000])))
            elif kind == "table":
                _change_tables(rng, index)
            else:
                results = sorted((target / "results").glob("*/*.parquet"))
                for path in rng.sample(results, rng.randint(1, 3)):
                    path.write_bytes(damaged(rng, path.read_bytes()))
            yield Case(kind, str(target))

    def attempt(self, case: Case) -> Judgement:
        """See :class:`~hostile_trials.Trial`."""
        return judged(lambda: self._used(Path(case.path)))

    def _used(self, folder: Path) -> Judgement:
        with Store(folder) as store:
            store.usage()
            store.prune(lambda facts: False)
            result = self._run(store)
        verdict = of_result(result)
        same = verdict[0] == "refused" or _comparable(result) == _comparable(self._truth)
        return verdict if same else ("unfounded", "", "the result differs from that of a whole store")

    def _run(self, store: Store) -> Any:
        job = prediction_job(MODEL, store, modalities=("face", "voice"), device="cpu", offline=True)
        (result,) = run_files(find_inputs([SAMPLE]), job, self._out, self._engine)
        self._engine.renew()
        return result


def _comparable(result: Any) -> tuple[Any, ...]:
    """What of a result does not depend on how long it took; a GPU or another order of sums rounds differently."""
    rows = [(one.start, one.end, one.label, one.speaker, dict(one.absent)) for one in result.utterances]
    return result.state, [str(one) for one in result.reasons], rows


def _change_tables(rng: Random, path: Path) -> None:
    """Another schema, or values that do not belong there."""
    statements = (
        "DROP TABLE results",
        "DROP TABLE files",
        "DROP TABLE work",
        "DROP TABLE files; CREATE TABLE files (x)",
        "DROP TABLE work; CREATE VIEW work AS SELECT 1 AS key",
        "UPDATE results SET facts = 'no JSON'",
        "UPDATE results SET facts = NULL",
        "UPDATE results SET facts = '[]'",
        "UPDATE results SET facts = '{}'",
        "UPDATE results SET facts = x'ff00', stage = x'ff', made = 'soon'",
        "UPDATE files SET content = NULL",
        "UPDATE files SET content = 7",
        "UPDATE files SET content = ''",
        "UPDATE work SET seconds = 'long', footage = -1, began = 'once'",
        "UPDATE work SET seconds = 9e999, footage = 1e-300",
        "CREATE TRIGGER bad BEFORE INSERT ON results BEGIN SELECT RAISE(ABORT, 'no'); END",
        "PRAGMA user_version = 2000000000",
    )
    with closing(sqlite3.connect(path)) as index:
        for statement in rng.sample(statements, rng.randint(1, 2)):
            with suppress(sqlite3.Error):
                index.executescript(statement)
        index.commit()

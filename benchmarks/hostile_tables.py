"""Damage labels tables, datasets, pickles and TOML at random: each must be read, or refused with a code.

    python benchmarks/hostile_tables.py --seed 0 --count 200

Every mutation ends as "ok", "refused (code)", "traceback" or "hang". Exit status 1 where one is of the last two.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import pickle
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emopipe.errors import EmopipeError
from emopipe.pipeline.datasets.writing import manifest_table

#: Seconds and bytes that one mutation may take.
PATIENCE: Final = 20.0
MEMORY: Final = 6 << 30
TABLE: Final = (
    "file,text,start,end,label,arousal,speaker,split\n"
    "a.mp4,,1.0,4.75,neutral,0.5,p1,train\n"
    "a.mp4,,6.15,9.59,happiness,1,p1,val\n"
    ",we won the race,,,sadness,-0.5,p2,test\n"
)
TOML: Final = '[model]\nname = "emoe"\n[train]\nepochs = 3\nlr = 0.001\n[face]\nrate = 5.0\n[speech]\ntracks = "mix"\n'
#: What people and fuzzers put into cells and values.
CELLS: Final = (
    *("", " ", "NA", "nan", "inf", "-1", "1e999", "1,5", "00:01:02,5", "6150", "99:99:99", "9" * 6000, "x" * 5000),
    *(
        "\u00fc",
        "u\u0308",
        "\u200b",
        "\ufeff",
        "\x00",
        "\x1b[31m",
        '"',
        "'",
        ";",
        "\t",
        "\r",
        "\n",
        "../../../etc/passwd",
    ),
    *(
        "=1+1",
        "/dev/zero",
        "/dev/stdin",
        "con",
        "a" * 300 + ".mp4",
        "dev",
        "Test",
        "HOLDOUT",
        "\ud83d".encode("utf-8", "replace").decode(),
    ),
    *("[" * 3000, "{a=" * 2000, "true", "1979-05-27", "0x" + "f" * 5000, "\u0661\u0662", "1_000", "++1", "\u221e"),
)
COLUMNS: Final = (
    "file",
    "label",
    "Label",
    "media",
    "words",
    "face",
    "voice_quality",
    "weight",
    "dialogue",
    "start",
    "",
    "split",
    "id",
)


def mangle(data: bytes, rng: random.Random) -> bytes:
    """Bytes with one to four flips, cuts, holes, repeats or insertions."""
    for _ in range(rng.randint(1, 4)):
        at, size = rng.randrange(len(data) + 1), rng.choice((1, 2, 8, 64))
        noise = rng.choice((rng.randbytes(size), b"\0" * size, b"\xff" * size, rng.choice(CELLS).encode()))
        data = rng.choice(
            (
                data[:at] + noise + data[at + size :],
                data[:at] + noise + data[at:],
                data[:at] + data[at + size :],
                data[:at],
                data[:at] + data[max(0, at - size) :],
            )
        )
    return data


def labels_table(folder: Path, rng: random.Random) -> Callable[[], object]:
    """A labels table with other cells, columns, delimiters, encodings or bytes."""
    from emopipe.pipeline.datasets.labels import read_labels

    rows = [line.split(",") for line in TABLE.splitlines()]
    for _ in range(rng.randint(0, 6)):
        row = rng.randrange(len(rows))
        column = rng.randrange(len(rows[row])) if rows[row] else 0
        change = rng.randrange(6)
        if change < 3 and rows[row]:
            rows[row][column] = rng.choice(CELLS if row else COLUMNS)
        elif change == 3:
            rows.insert(row, list(rows[row]))
        elif change == 4:
            rows[row].append(rng.choice(CELLS))
        else:
            del rows[row][column:]
    delimiter = rng.choice((",", ";", "\t", "|"))
    quote = rng.choice(("", '"'))
    end = rng.choice(("\n", "\r\n", "\r"))
    text = end.join(delimiter.join(f"{quote}{cell}{quote}" for cell in row) for row in rows)
    data = text.encode(rng.choice(("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252", "utf-32")), "replace")
    (folder / "a.mp4").touch()
    path = folder / f"labels{rng.choice(('.csv', '.tsv', '.xlsx'))}"
    path.write_bytes(mangle(data, rng) if rng.random() < 0.5 else data)

    def use() -> object:
        read = read_labels(path)
        return manifest_table([{"id": row.source.id, "split": row.split, **row.labels} for row in read.rows])

    return use


def _dataset(folder: Path) -> Path:
    """A small dataset as `emopipe extract` writes it."""
    import json

    data, rng = folder / "data", np.random.default_rng(0)
    data.mkdir()
    rows: list[dict[str, Any]] = []
    for number in range(24):
        row: dict[str, Any] = {"id": f"u{number}", "media": "a.mp4", "start": 0.0, "end": 1.0}
        row |= {"speaker": f"p{number % 6}", "split": ("train", "train", "valid")[number % 3], "words": "well"}
        rows.append({**row, "label": ("joy", "fear")[number % 2], "text": f"u{number}", "text_absent": None})
    pq.write_table(manifest_table(rows), data / "manifest.parquet")
    values = pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=24 * 4).astype(np.float32)), 4)
    table = pa.table({"key": [row["id"] for row in rows], "start": [0.0] * 24, "end": [1.0] * 24, "features": values})
    facts = {b"emopipe": json.dumps({"modality": "text", "names": list("abcd")}).encode()}
    pq.write_table(table.replace_schema_metadata(facts), data / "text.parquet")
    (data / "config.toml").write_text('[text]\nencoder = "minilm-l6"\n')
    return data


def dataset(folder: Path, rng: random.Random) -> Callable[[], object]:
    """A dataset with other bytes in one file, or other values or types in a column of its manifest."""
    data = _dataset(folder)
    if rng.random() < 0.5:
        path = data / rng.choice(("manifest.parquet", "text.parquet", "config.toml"))
        path.write_bytes(mangle(path.read_bytes(), rng))
    else:
        table = pq.read_table(data / "manifest.parquet")
        for _ in range(rng.randint(1, 3)):
            name, size = rng.choice(table.column_names), table.num_rows
            kinds: tuple[list[Any], ...] = (
                [None] * size,
                [rng.choice(CELLS) for _ in range(size)],
                [rng.choice((0, 1, -5)) for _ in range(size)],
                [rng.choice((0.5, float("nan"), float("inf"))) for _ in range(size)],
                [[1]] * size,
                [rng.random() < 0.5 for _ in range(size)],
                [b"\xff"] * size,
            )
            at = table.column_names.index(name)
            table = table.remove_column(at) if rng.random() < 0.2 else table.set_column(at, name, [rng.choice(kinds)])
        pq.write_table(table, data / "manifest.parquet")
    return lambda: _used(data, "label")


def mmsa_pickle(folder: Path, rng: random.Random) -> Callable[[], object]:
    """A pickle in MMSA's layout with other keys, shapes, types or bytes."""
    noise = np.random.default_rng(rng.randrange(2**32))

    def split(name: str, count: int) -> dict[str, Any]:
        table: dict[str, Any] = {"id": np.array([f"{name}{n}$_$1" for n in range(count)])}
        table |= {key: noise.normal(size=(count, 5, 3)).astype(np.float32) for key in ("text", "audio", "vision")}
        return {**table, "raw_text": ["well"] * count, "regression_labels": noise.normal(size=count)}

    content: dict[Any, Any] = {name: split(name, 8) for name in ("train", rng.choice(("valid", "dev", "val")), "test")}
    for _ in range(rng.randint(0, 3)):
        name = rng.choice(list(content) or [0])
        if rng.random() < 0.4:
            content[rng.choice(("holdout", "dev", 3, "Train", None))] = content.pop(name, None)
        elif isinstance(content.get(name), dict) and content[name]:
            key = rng.choice(list(content[name]))
            wrong: tuple[Any, ...] = (None, [], {}, "text", np.zeros((0, 0)), np.zeros((8, 5)), [np.inf] * 8, [1, "a"])
            content[name][key] = rng.choice((*wrong, np.array([object()] * 0), np.zeros(8, "M8[s]"), print, Path("a")))
    data = pickle.dumps(content, protocol=rng.choice((0, 2, 4, 5)))
    path = folder / "data.pkl"
    path.write_bytes(mangle(data, rng) if rng.random() < 0.6 else data)
    return lambda: _used(path, "sentiment")


def toml(folder: Path, rng: random.Random) -> Callable[[], object]:
    """A configuration with other values or bytes."""
    lines = TOML.splitlines()
    for _ in range(rng.randint(0, 3)):
        at = rng.randrange(len(lines))
        lines[at] = f"{lines[at].partition('=')[0]}= {rng.choice(CELLS)}"
    path = folder / "config.toml"
    data = "\n".join(lines).encode()
    path.write_bytes(mangle(data, rng) if rng.random() < 0.5 else data)

    def use() -> object:
        from emopipe.api import training_config
        from emopipe.pipeline.config import load_config

        return load_config(path), training_config(None, {"config": path})

    return use


def _used(path: Path, label: str) -> object:
    """What training does with a dataset before its first epoch."""
    from emopipe.models.data.reading import read
    from emopipe.models.training.config import TrainConfig
    from emopipe.models.training.events import silent
    from emopipe.models.training.plan import choose_split, make_plan

    data, config = read(path), TrainConfig(label=label)
    plan = make_plan(data, config, choose_split(data, config), silent)
    return data.batch(plan.train)


KINDS: Final = {"labels table": labels_table, "dataset": dataset, "MMSA pickle": mmsa_pickle, "TOML": toml}


def outcome(use: Callable[[], object]) -> str:
    """Run one mutation."""
    try:
        use()
    except EmopipeError as error:
        if not error.code or error.code == "EMO-901" or not (error.hint or error.advice):
            return f"traceback: an error without a code or advice: {error}"
        return f"refused ({error.code})"
    except BaseException:
        return "traceback: " + traceback.format_exc()
    return "ok"


def _work(kind: str, seed: int, numbers: range, sink: Connection) -> None:
    """Run mutations and send how each ended."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    sys.stdin = io.StringIO()
    for number in numbers:
        folder = Path(tempfile.mkdtemp(prefix="hostile-"))
        try:
            rng = random.Random(f"{kind} {seed} {number}")
            sink.send((number, outcome(KINDS[kind](folder, rng))))
        finally:
            shutil.rmtree(folder)


def run(kind: str, seed: int, count: int) -> Iterator[tuple[int, str]]:
    """How each mutation of a kind ended; a worker that hangs or dies is replaced."""
    context = multiprocessing.get_context("fork")
    done = 0
    while done < count:
        source, sink = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(kind, seed, range(done, count), sink))
        worker.start()
        sink.close()
        while done < count:
            try:
                if not source.poll(PATIENCE):
                    yield done, "hang"
                    break
                number, how = source.recv()
            except EOFError:
                yield done, "traceback: the process died"
                break
            yield number, how
            done = number + 1
        else:
            worker.join()
            continue
        worker.kill()
        worker.join()
        done += 1


def main() -> int:
    """Run the mutations of one seed and print how they ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200, help="mutations of each kind")
    options = parser.parse_args()
    bad = 0
    for kind in KINDS:
        tally: Counter[str] = Counter()
        for number, how in run(kind, options.seed, options.count):
            tally[how.partition(":")[0]] += 1
            if how.startswith(("traceback", "hang")):
                bad += 1
                print(f"{kind} {options.seed} {number}: {how}", file=sys.stderr)
        print(f"seed {options.seed}, {kind}: " + ", ".join(f"{count} {how}" for how, count in tally.most_common()))
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())

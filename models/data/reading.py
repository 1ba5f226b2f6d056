"""Open a dataset: a folder of ours, one of MMSA's files, or a folder of MIntRec's features."""

from __future__ import annotations

import hashlib
import math
import tomllib
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from emopipe.constants import MODALITIES
from emopipe.errors import DatasetError
from emopipe.models.data import mintrec, mmsa
from emopipe.models.data.dataset import EXTRACT_AGAIN, Dataset, FeatureStore
from emopipe.models.data.split_names import HINT, split_name

#: Columns of a manifest that hold text, and numbers, where they are there.
TEXT_COLUMNS: Final = ("id", "media", "speaker", "split", "words", *MODALITIES)
NUMBER_COLUMNS: Final = ("start", "end", "weight", *(f"{modality}_quality" for modality in MODALITIES))


def read(path: str | Path) -> Dataset:
    """Open a dataset folder: `manifest.parquet`, one Parquet per modality, `config.toml`.

    Feature values are read when they are first used. A file is opened as one of MMSA's, a folder with MIntRec's tables
    and pickles as that; see :mod:`emopipe.models.data.mmsa` and :mod:`emopipe.models.data.mintrec`.

    Raises:
        DatasetError: the folder or a part of it is missing or damaged.
    """
    folder = Path(path)
    if folder.is_file():
        return mmsa.read(folder)
    manifest_path = folder / "manifest.parquet"
    if not manifest_path.is_file() and mintrec.holds(folder):
        text = folder / mintrec.TEXT
        return mintrec.read(folder, read(text) if (text / "manifest.parquet").is_file() else None)
    if not manifest_path.is_file():
        raise DatasetError("there is no dataset here", hint="Make one with `emopipe extract`", path=folder)
    try:
        manifest = pq.read_table(manifest_path)
        digest = hashlib.sha256(manifest_path.read_bytes()).hexdigest()
        config = folder / "config.toml"
        extraction = tomllib.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    except (OSError, pa.ArrowException, ValueError, RecursionError) as error:
        raise DatasetError(f"the dataset cannot be read: {error}", hint=EXTRACT_AGAIN, path=folder) from error
    manifest = _with_plain_types(manifest, manifest_path)
    _check_manifest(manifest, manifest_path)
    manifest = _with_split_names(manifest, manifest_path)
    stores = {
        m: FeatureStore.open(folder / f"{m}.parquet", m) for m in MODALITIES if (folder / f"{m}.parquet").is_file()
    }
    for modality in MODALITIES:
        used = modality in manifest.column_names and manifest[modality].null_count < manifest.num_rows
        if used and modality not in stores:
            raise DatasetError(f"{modality}.parquet is missing", hint=EXTRACT_AGAIN, path=folder)
    return Dataset(manifest, stores, extraction, digest)


def _with_plain_types(manifest: pa.Table, path: Path) -> pa.Table:
    """The manifest with text and numbers where these are needed, whatever wrote it."""
    kinds = {**dict.fromkeys(TEXT_COLUMNS, pa.string()), **dict.fromkeys(NUMBER_COLUMNS, pa.float64())}
    for at, name in enumerate(manifest.column_names):
        if name not in kinds or manifest[name].type == kinds[name]:
            continue
        try:
            manifest = manifest.set_column(at, name, manifest[name].cast(kinds[name]))
        except pa.ArrowException as error:
            what = f"the column {name!r} of the manifest holds {manifest[name].type}: {error}"
            raise DatasetError(what[:300], hint=EXTRACT_AGAIN, path=path) from error
    return manifest


def _check_manifest(manifest: pa.Table, path: Path) -> None:
    missing = [name for name in ("id", "split") if name not in manifest.column_names]
    if missing:
        raise DatasetError(f"the manifest has no column {missing[0]!r}", hint=EXTRACT_AGAIN, path=path)
    weights = manifest["weight"].to_pylist() if "weight" in manifest.column_names else []
    if any(one is not None and not 0 <= one < math.inf for one in weights):
        raise DatasetError("the manifest has weights that are not numbers of 0 or more", hint=EXTRACT_AGAIN, path=path)
    ids = manifest["id"].to_pylist()
    if None in ids:
        raise DatasetError("the manifest has utterances without an id", hint=EXTRACT_AGAIN, path=path)
    if len(set(ids)) != len(ids):
        raise DatasetError("the manifest has utterances with the same id", hint=EXTRACT_AGAIN, path=path)


def _with_split_names(manifest: pa.Table, path: Path) -> pa.Table:
    """The manifest with its splits called train, valid and test."""
    given = manifest["split"].to_pylist()
    names = {name: split_name(str(name)) for name in set(given) if name not in (None, "")}
    unknown = sorted(str(name) for name, split in names.items() if split is None)
    if unknown:
        raise DatasetError(f"the manifest has an unknown split {unknown[0][:80]!r}", hint=HINT, path=path)
    at = manifest.column_names.index("split")
    return manifest.set_column(at, "split", pa.array([names.get(name) for name in given], pa.string()))

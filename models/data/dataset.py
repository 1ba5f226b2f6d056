"""Datasets of utterance features, and the padded batches that models see."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from emopipe.constants import MODALITIES
from emopipe.errors import DatasetError
from emopipe.models.data.conversation import Transcript
from emopipe.models.data.label_values import join_spellings
from emopipe.models.data.speakers import SpeakerMeans
from emopipe.models.data.votes import Votes, read_votes

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]
Schema = Mapping[str, tuple[str, ...]]
#: Columns of the manifest by which rows are kept together, the first that a row has, and what they name.
GROUPED_BY: Final = {"speaker": "speakers", "dialogue": "conversations", "media": "recordings", "id": "clips"}


@dataclass(frozen=True)
class Sample:
    """The features of one utterance.

    Attributes:
        features: modality -> (T, D) float32, one row per time step; None (or no entry) when absent.
        quality: modality -> number in (0, 1]; 1 where not given.
        words: what was said, for models that read words.
        line: the same as its conversation shows it; see :func:`~emopipe.models.data.conversation.spoken`.
        earlier: the lines before it in the same conversation, oldest first.
        usual: modality -> mean (D,) and variance (D,) of its features over the speaker's other utterances, where these
            are known.
    """

    features: Mapping[str, Floats | None]
    quality: Mapping[str, float] = field(default_factory=dict)
    words: str = ""
    line: str = ""
    earlier: Sequence[str] = ()
    usual: Mapping[str, tuple[Floats, Floats] | None] = field(default_factory=dict)

    def has(self, modality: str) -> bool:
        """Whether the utterance has at least one time step of this modality."""
        steps = self.features.get(modality)
        return steps is not None and len(steps) > 0


@dataclass(frozen=True)
class Batch:
    """B utterances, padded with zeros at the end to the longest of the batch.

    Attributes:
        modalities: the M modalities, the order of all columns below.
        features: modality -> (B, T, D) float32.
        lengths: (B, M) int64, valid steps; 0 where absent.
        present: (B, M) bool.
        quality: (B, M) float32 in (0, 1].
        labels: (B,) int64 classes or float32 values; None at inference.
        shares: (B, C) float32 shares of the classes in the votes on each utterance, where labels are soft; else None.
        weights: (B,) float32 sample weights; None stands for ones.
        rows: (B,) int64 rows of the dataset, the same in every epoch; None at inference.
        tokens: (B, T) int64 token ids of the text, for models that encode it themselves; 0 where it has ended; None
            when the dataset keeps none.
        words: B texts, what was said; empty where nothing was.
        lines: B times the same as its conversation shows it.
        earlier: B times the lines before it in the same conversation, oldest first.
        speaker_means: modality -> (B, D) mean of its features over the speaker's other utterances, NaN where it is not
            known; empty for models that do not read it.
        speaker_variances: modality -> (B, D), the same of the variance.
    """

    modalities: tuple[str, ...]
    features: dict[str, Tensor]
    lengths: Tensor
    present: Tensor
    quality: Tensor
    labels: Tensor | None = None
    shares: Tensor | None = None
    weights: Tensor | None = None
    rows: Tensor | None = None
    tokens: Tensor | None = None
    words: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    earlier: tuple[tuple[str, ...], ...] = ()
    speaker_means: dict[str, Tensor] = field(default_factory=dict)
    speaker_variances: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.present)

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        moved = {name: value.to(device, non_blocking=True) for name, value in self.features.items()}
        return replace(
            self,
            features=moved,
            lengths=self.lengths.to(device),
            present=self.present.to(device),
            quality=self.quality.to(device),
            labels=None if self.labels is None else self.labels.to(device),
            shares=None if self.shares is None else self.shares.to(device),
            weights=None if self.weights is None else self.weights.to(device),
            rows=None if self.rows is None else self.rows.to(device),
            tokens=None if self.tokens is None else self.tokens.to(device),
            speaker_means={name: value.to(device) for name, value in self.speaker_means.items()},
            speaker_variances={name: value.to(device) for name, value in self.speaker_variances.items()},
        )

    @property
    def targets(self) -> Tensor:
        """What a loss compares logits with: shares of classes (B, C) where labels are soft, else the labels (B,).

        Raises:
            ValueError: the batch has no labels.
        """
        if self.labels is None:
            raise ValueError("the batch has no labels")
        return self.labels if self.shares is None else self.shares

    def masked(self, keep: Tensor) -> Batch:
        """The same batch with every modality outside `keep` ((B, M) or (M,) bool) declared absent."""
        return replace(self, present=self.present & keep.to(self.present.device))


def pad(steps: Sequence[Floats | None], dim: int) -> tuple[Tensor, Indices]:
    """Stack sequences of (T_i, dim) into (B, max T_i, dim) with zeros at the end.

    Returns:
        The padded tensor (at least one step long) and the lengths, 0 for None.
    """
    lengths = np.array([0 if one is None else len(one) for one in steps], dtype=np.int64)
    padded = np.zeros((len(steps), max(1, int(lengths.max(initial=0))), dim), dtype=np.float32)
    for row, one in zip(padded, steps, strict=True):
        if one is not None:
            row[: len(one)] = one
    return torch.from_numpy(padded), lengths


def stack_usual(usual: Sequence[tuple[Floats, Floats] | None], dim: int) -> tuple[Tensor, Tensor]:
    """Stack what is usual for B speakers into means (B, dim) and variances (B, dim), NaN for None."""
    unknown = np.full((2, dim), np.nan, dtype=np.float32)
    table = np.array([unknown if one is None else one for one in usual], dtype=np.float32).reshape(-1, 2, dim)
    return torch.from_numpy(table[:, 0].copy()), torch.from_numpy(table[:, 1].copy())


def collate(samples: Sequence[Sample], schema: Schema) -> Batch:
    """Pad samples into one batch holding the modalities of `schema` (modality -> feature names).

    Raises:
        ValueError: a sample's feature width differs from the schema's.
    """
    modalities = tuple(schema)
    features, lengths = {}, []
    for name in modalities:
        steps = [sample.features.get(name) for sample in samples]
        dim = len(schema[name])
        for one in steps:
            if one is not None and (one.ndim != 2 or one.shape[1] != dim):
                raise ValueError(f"{name} features have shape {one.shape}, expected (steps, {dim})")
        features[name], length = pad(steps, dim)
        lengths.append(length)
    table = torch.from_numpy(np.stack(lengths, axis=1))
    quality = [[sample.quality.get(name, 1.0) for name in modalities] for sample in samples]
    usual = {
        name: stack_usual([sample.usual.get(name) for sample in samples], len(schema[name]))
        for name in modalities
        if any(sample.usual.get(name) is not None for sample in samples)
    }
    return Batch(
        modalities,
        features,
        table,
        table > 0,
        torch.tensor(quality, dtype=torch.float32),
        words=tuple(sample.words for sample in samples),
        lines=tuple(sample.line for sample in samples),
        earlier=tuple(tuple(sample.earlier) for sample in samples),
        speaker_means={name: means for name, (means, _) in usual.items()},
        speaker_variances={name: variances for name, (_, variances) in usual.items()},
    )


class FeatureStore:
    """The features of one modality: all sequences in one array, fetched when first used.

    Args:
        path: the file they are from, for messages.
        modality: which one.
        names: the D feature names.
        keys: of the sequences, in the order of the array.
        lengths: steps of each sequence.
        load: returns the array, (steps of all sequences, D) float32.

    Attributes:
        index: sequence key -> number of the sequence.
    """

    def __init__(
        self,
        path: Path,
        modality: str,
        names: tuple[str, ...],
        keys: Sequence[str],
        lengths: Indices,
        load: Callable[[], Floats],
    ) -> None:
        self.path = path
        self.modality = modality
        self.names = names
        self.index = {key: number for number, key in enumerate(keys)}
        self.lengths = lengths
        self.starts: Indices = np.cumsum(lengths) - lengths
        self._load = load

    @classmethod
    def open(cls, path: Path, modality: str) -> FeatureStore:
        """The store of a Parquet file with columns `key` and `features`.

        Raises:
            DatasetError: the file cannot be read or its keys are scattered.
        """
        try:
            names = _read_names(path, modality)
            keys = pq.read_table(path, columns=["key"])["key"].to_numpy()
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            if isinstance(error, DatasetError):
                raise
            raise DatasetError(
                f"the {modality} features cannot be read: {error}", hint=EXTRACT_AGAIN, path=path
            ) from error
        first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.zeros(0, dtype=np.int64)
        lengths = np.diff(np.r_[first, len(keys)]).astype(np.int64)
        if len(set(keys[first])) != len(first):
            raise DatasetError(f"rows of a key of the {modality} features are scattered", hint=EXTRACT_AGAIN, path=path)
        load = partial(_read_values, path, modality, len(keys), len(names))
        return cls(path, modality, names, [str(key) for key in keys[first]], lengths, load)

    @property
    def dim(self) -> int:
        """The number of features."""
        return len(self.names)

    @cached_property
    def values(self) -> Floats:
        """(steps of all sequences, D) float32."""
        return self._load()

    def sequence(self, number: int) -> Floats:
        """(T, D) float32, one sequence."""
        start = self.starts[number]
        return self.values[start : start + self.lengths[number]]

    def gather(self, numbers: Indices) -> tuple[Tensor, Indices]:
        """Pad sequences into (B, T, D), T the longest; a negative number stands for an absent sequence of length 0."""
        return pad([self.sequence(int(n)) if n >= 0 else None for n in numbers], self.dim)

    def steps(self, numbers: Indices) -> Floats:
        """(steps, D) float32: all steps of the given sequences, each sequence once."""
        unique = np.unique(numbers[numbers >= 0])
        if len(unique) == len(self.starts):
            return self.values
        take = np.zeros(len(self.values), dtype=bool)
        for number in unique:
            take[self.starts[number] : self.starts[number] + self.lengths[number]] = True
        return self.values[take]


def _read_names(path: Path, modality: str) -> tuple[str, ...]:
    schema = pq.read_schema(path)
    kind = schema.field("features").type
    names = json.loads((schema.metadata or {})[b"emopipe"])["names"]
    if not pa.types.is_fixed_size_list(kind) or kind.list_size != len(names):
        raise DatasetError(
            f"the {modality} features are {kind} but {len(names)} names are given", hint=EXTRACT_AGAIN, path=path
        )
    return tuple(str(name) for name in names)


def _read_values(path: Path, modality: str, steps: int, dim: int) -> Floats:
    try:
        column = pq.read_table(path, columns=["features"])["features"].combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"the {modality} features cannot be read: {error}", hint=EXTRACT_AGAIN, path=path) from error
    flat = np.array(column.flatten().to_numpy(zero_copy_only=False), dtype=np.float32)  # Arrow memory is read-only
    if flat.size != steps * dim:
        raise DatasetError(f"some rows of the {modality} features are null", hint=EXTRACT_AGAIN, path=path)
    table: Floats = flat.reshape(-1, dim)
    return table


EXTRACT_AGAIN: Final = "Write the dataset again with `emopipe extract`"


class Dataset:
    """Utterances with their features, labels and splits; cheap to open and to subset.

    Attributes:
        modalities: the M modalities that have features, in the order text, face, voice.
        schema: modality -> feature names.
        extraction: the resolved extraction configuration the features were made with.
        hash: sha256 of the manifest file.
        tokens: token ids of the text, one a step, in the sequences of the text features; None when there are none.
        transcript: what was said; it knows whole conversations, also where rows of them are left out.
        present: (N, M) bool, in the order of `modalities`.
    """

    def __init__(
        self,
        manifest: pa.Table,
        stores: Mapping[str, FeatureStore],
        extraction: Mapping[str, Any],
        manifest_hash: str,
        tokens: FeatureStore | None = None,
        transcript: Transcript | None = None,
        whole: Dataset | None = None,
    ) -> None:
        self.manifest = manifest
        self._whole = self if whole is None else whole
        self._votes: dict[str, Votes | None] = {}
        self.tokens = tokens
        self.transcript = transcript or Transcript(manifest)
        self.extraction = dict(extraction)
        self.hash = manifest_hash
        self.modalities = tuple(name for name in MODALITIES if name in stores)
        self._stores = {name: stores[name] for name in self.modalities}
        self._numbers = {name: self._find(name) for name in self.modalities}
        columns = [self._numbers[name] >= 0 for name in self.modalities]
        self.present: Mask = np.stack(columns, axis=1) if columns else np.zeros((len(self), 0), dtype=bool)

    def __len__(self) -> int:
        return int(self.manifest.num_rows)

    def _find(self, modality: str) -> Indices:
        index = self._stores[modality].index
        keys = self.column(modality)
        missing = [key for key in keys if key is not None and key not in index]
        if missing:
            raise DatasetError(
                f"{len(missing)} utterances name {modality} features that are not there, the first is {missing[0]!r}",
                hint=EXTRACT_AGAIN,
                path=self._stores[modality].path,
            )
        return np.array([-1 if key is None else index[key] for key in keys], dtype=np.int64)

    def column(self, name: str) -> NDArray[np.object_]:
        """(N,) one manifest column, None where null; all None when the manifest lacks it."""
        if name not in self.manifest.column_names:
            return np.full(len(self), None, dtype=object)
        values = np.empty(len(self), dtype=object)
        values[:] = self.manifest[name].to_pylist()
        return values

    @property
    def schema(self) -> dict[str, tuple[str, ...]]:
        """Names of the features of each modality."""
        return {name: store.names for name, store in self._stores.items()}

    @property
    def feature_names(self) -> dict[str, tuple[str, ...]]:
        """Names of the features of each modality, as :attr:`schema` has them."""
        return self.schema

    @property
    def dims(self) -> dict[str, int]:
        """Number of features of each modality."""
        return {name: store.dim for name, store in self._stores.items()}

    @cached_property
    def ids(self) -> NDArray[np.object_]:
        """Ids of the rows (rows,)."""
        return self.column("id")

    @cached_property
    def split(self) -> NDArray[np.object_]:
        """(N,) train, valid or test, as the manifest says; None where it does not."""
        return self.column("split")

    @cached_property
    def corpora(self) -> tuple[str, ...]:
        """Names of the published corpora that the rows are of, as the manifest's column `corpus` says."""
        return tuple(sorted({str(name) for name in self.column("corpus") if name}))

    @cached_property
    def speakers(self) -> NDArray[np.object_]:
        """(N,) speaker names, None where unknown."""
        names = self.column("speaker")
        names[names == ""] = None
        return names

    @cached_property
    def groups(self) -> NDArray[np.object_]:
        """(N,) what must stay on one side of a split: the speaker, else conversation, media file or utterance."""
        rows = zip(*map(self.column, GROUPED_BY), strict=True)
        first = (next(pair for pair in zip(GROUPED_BY, row, strict=True) if pair[1] not in (None, "")) for row in rows)
        return np.array([f"{kind}:{name}" for kind, name in first], dtype=object)

    @property
    def grouped_by(self) -> str:
        """What :attr:`groups` are, in words: "speakers", or "speakers and recordings" where some rows name none."""
        kinds = {group.split(":", 1)[0] for group in self.groups}
        return " and ".join(words for kind, words in GROUPED_BY.items() if kind in kinds)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) steps of the longest present modality."""
        lengths = np.zeros(len(self), dtype=np.int64)
        for name in self.modalities:
            there = self._numbers[name] >= 0
            lengths[there] = np.maximum(lengths[there], self._stores[name].lengths[self._numbers[name][there]])
        return lengths

    @cached_property
    def weights(self) -> Floats:
        """(N,) sample weights; 1 where the manifest gives none."""
        return np.array([1.0 if w is None else w for w in self.column("weight")], dtype=np.float32)

    @cached_property
    def quality(self) -> Floats:
        """(N, M) quality of each modality in (0, 1]; 1 where the manifest gives none."""
        columns = [[1.0 if q is None else q for q in self.column(f"{m}_quality")] for m in self.modalities]
        return np.array(columns, dtype=np.float32).reshape(len(self.modalities), len(self)).T

    def labels(self, column: str) -> NDArray[Any]:
        """(N,) labels: objects (None where unlabelled) of a text column, float64 (NaN) of a numeric one.

        Spellings of a label that differ in case or blanks are one label. Where several coders gave labels and there is
        no column of this name, or its cells hold several names, it is the label that they give together; see
        :class:`~emopipe.models.data.votes.Votes`.

        Raises:
            DatasetError: the manifest has no such column.
        """
        votes = self.votes(column)
        if votes is not None and (column not in self.manifest.column_names or column in votes.columns):
            return votes.labels.copy()
        if column not in self.manifest.column_names:
            columns = ", ".join(self.manifest.column_names)
            raise DatasetError(f"the manifest has no column {column!r}", hint=f"Choose one of: {columns}")
        values = self.column(column)
        if pa.types.is_nested(self.manifest[column].type):
            kind = self.manifest[column].type
            hint = "Write one text or number in each row"
            raise DatasetError(f"the column {column!r} holds {kind}, not labels", hint=hint)
        if pa.types.is_floating(self.manifest[column].type) or pa.types.is_integer(self.manifest[column].type):
            return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        joined, _ = join_spellings([None if value is None else str(value) for value in values])
        values[:] = joined
        return values

    def largest(self, column: str) -> float:
        """The largest absolute value of numeric labels, of the rows that these were chosen from too; 0 without any."""
        own, whole = self.labels(column), self._whole
        known = column in whole.manifest.column_names or whole.votes(column) is not None
        every = whole.labels(column) if known else own
        numbers = [one for one in (own, every) if one.dtype != object]
        return float(np.nanmax(np.abs(np.concatenate(numbers)), initial=0.0)) if numbers else 0.0

    def votes(self, column: str) -> Votes | None:
        """The votes of several coders on a label; None where there is one label a row.

        Raises:
            DatasetError: a column of votes holds something else.
        """
        if column not in self._votes:
            self._votes[column] = read_votes(self.manifest, column)
        return self._votes[column]

    def subset(self, rows: NDArray[Any]) -> Dataset:
        """The rows chosen by an (N,) bool mask or by indices; features are shared, not copied."""
        chosen = np.flatnonzero(rows) if rows.dtype == bool else rows
        return self.with_manifest(self.manifest.take(pa.array(chosen)))

    def with_manifest(self, manifest: pa.Table) -> Dataset:
        """The same features under another manifest."""
        return Dataset(manifest, self._stores, self.extraction, self.hash, self.tokens, self.transcript, self._whole)

    def select(self, modalities: Sequence[str]) -> Dataset:
        """The same rows with only these modalities.

        Raises:
            DatasetError: the dataset has no features of one of them.
        """
        unknown = [name for name in modalities if name not in self.modalities]
        if unknown:
            have = ", ".join(self.modalities) or "none"
            raise DatasetError(f"the dataset has no {unknown[0]} features", hint=f"It has: {have}")
        stores = {name: store for name, store in self._stores.items() if name in modalities}
        return Dataset(self.manifest, stores, self.extraction, self.hash, self.tokens, self.transcript, self._whole)

    def steps(self, modality: str) -> Floats:
        """(steps, D) float32: every time step of one modality that some row uses, each once."""
        return self._stores[modality].steps(self._numbers[modality])

    def sample(self, row: int) -> Sample:
        """One utterance."""
        features: dict[str, Floats | None] = {}
        for name, store in self._stores.items():
            number = int(self._numbers[name][row])
            features[name] = store.sequence(number) if number >= 0 else None
        quality = dict(zip(self.modalities, self.quality[row].tolist(), strict=True))
        name = self.ids[row]
        transcript = self.transcript
        return Sample(features, quality, transcript.words(name), transcript.line(name), transcript.earlier(name))

    @cached_property
    def speaker_means(self) -> SpeakerMeans:
        """What is usual for each speaker, over all rows."""
        means = SpeakerMeans()
        for row, speaker in enumerate(self.speakers):
            if speaker is not None:
                means.add(str(speaker), self.sample(row).features)
        return means

    def usual_of_others(self, modality: str, rows: Indices) -> tuple[Tensor, Tensor]:
        """Means (rows, D) and variances over the other utterances of each row's speaker; NaN where not known."""
        usual = []
        for row in rows:
            number, speaker = int(self._numbers[modality][row]), self.speakers[row]
            steps = self._stores[modality].sequence(number) if number >= 0 else None
            usual.append(self.speaker_means.of_others(None if speaker is None else str(speaker), modality, steps))
        return stack_usual(usual, self._stores[modality].dim)

    def batch(self, rows: Indices, modalities: Sequence[str] | None = None, *, relative: bool = False) -> Batch:
        """Some utterances, padded.

        Args:
            rows: which.
            modalities: choose and order the columns; those without features are absent.
            relative: also tell what is usual for the speakers, by their other utterances.
        """
        chosen = self.modalities if modalities is None else tuple(modalities)
        features, lengths = {}, np.zeros((len(rows), len(chosen)), dtype=np.int64)
        quality = np.ones((len(rows), len(chosen)), dtype=np.float32)
        for column, name in enumerate(chosen):
            if name not in self._stores:
                features[name] = torch.zeros(len(rows), 1, 0)
                continue
            features[name], lengths[:, column] = self._stores[name].gather(self._numbers[name][rows])
            quality[:, column] = self.quality[rows, self.modalities.index(name)]
        tokens = None
        if self.tokens is not None and "text" in chosen and "text" in self.modalities:
            tokens = self.tokens.gather(self._numbers["text"][rows])[0].squeeze(2).long()
        table, names = torch.from_numpy(lengths), self.ids[rows]
        known = [name for name in chosen if name in self._stores] if relative else []
        usual = {name: self.usual_of_others(name, rows) for name in known}
        return Batch(
            chosen,
            features,
            table,
            table > 0,
            torch.from_numpy(quality),
            tokens=tokens,
            words=tuple(map(self.transcript.words, names)),
            lines=tuple(map(self.transcript.line, names)),
            earlier=tuple(map(self.transcript.earlier, names)),
            speaker_means={name: means for name, (means, _) in usual.items()},
            speaker_variances={name: variances for name, (_, variances) in usual.items()},
        )

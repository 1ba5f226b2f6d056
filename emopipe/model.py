"""A trained fusion model, ready to predict."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emopipe.errors import ConfigError
from emopipe.options import AnyPath, chosen_modalities

if TYPE_CHECKING:
    import pandas as pd

    from emopipe.models.data.dataset import Dataset
    from emopipe.models.evaluation.evaluate import Evaluation
    from emopipe.models.predictor import Predictor, Prior


class Model:
    """A checkpoint that is loaded. Made by :func:`emopipe.load` and :func:`emopipe.train`.

    Attributes:
        id: of the checkpoint.
        path: its folder.
        validation: how good it was on the rows that it was validated on; None for a loaded one, and without such rows.
        linear: how good a linear model was that was trained on the same rows; None where validation is, too.
        folds: of a training without rows to validate on: a row for it and for a linear model on the same folds.
        folds_of: what those folds keep on one side: "speakers", "recordings", "clips", ...
        verdict: how the two compare, in a sentence.
    """

    def __init__(self, predictor: Predictor, identity: str, path: Path, validation: Evaluation | None = None) -> None:
        self._predictor = predictor
        self.id = identity
        self.path = path
        self.validation = validation
        self.linear: Evaluation | None = None
        self.folds: list[dict[str, Any]] = []
        self.folds_of = ""
        self.verdict = ""

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        predicts = ", ".join(self.classes) or self.label
        return f"Model {self.id} ({self._predictor.spec.model}): {' + '.join(self.modalities)} -> {predicts}"

    @property
    def classes(self) -> tuple[str, ...]:
        """What it tells apart; () for a regression."""
        return self._predictor.spec.classes

    @property
    def label(self) -> str:
        """The column that it was trained to predict."""
        return self._predictor.spec.label

    @property
    def modalities(self) -> tuple[str, ...]:
        """What it reads."""
        return self._predictor.spec.modalities

    @property
    def card(self) -> str:
        """Its card: what it is, what it saw, how good it was, what it is for (Markdown)."""
        card = self.path / "README.md"
        return card.read_text("utf-8") if card.is_file() else ""

    def predict(self, dataset: AnyPath | Dataset, modalities: Sequence[str] = ()) -> pd.DataFrame:
        """Predict every row of a dataset.

        Args:
            dataset: a folder made by `emopipe extract`, one of MMSA's files, or an opened dataset.
            modalities: hide all others; () for all.

        Returns:
            A frame with the index `id` and the columns `label` (or `value`), `confidence`, `abstained`,
            `probability_CLASS` and `weight_MODALITY`.

        Raises:
            FeatureMismatch: the features are not those that it was trained on.
        """
        import pandas as pd

        data = _opened(dataset)
        self._predictor.check_features(data.schema, data.extraction)
        scores = self._predictor.scores(data, None, chosen_modalities(modalities) or None)
        rows = []
        for name, one in zip(data.ids, self._predictor.describe(scores), strict=True):
            outcome = {"label": one.label} if self.classes else {"value": one.value}
            shares = {f"probability_{label}": share for label, share in one.probabilities.items()}
            weights = {f"weight_{modality}": weight for modality, weight in one.weights.items()}
            rows.append(
                {"id": name, **outcome, "confidence": one.confidence, "abstained": one.abstained} | shares | weights
            )
        answers = [*(f"probability_{name}" for name in self.classes), *(f"weight_{name}" for name in self.modalities)]
        columns = ["id", "label" if self.classes else "value", "confidence", "abstained", *answers]
        return pd.DataFrame(rows, columns=None if rows else columns).set_index("id")

    def predict_proba(
        self, dataset: AnyPath | Dataset, modalities: Sequence[str] = (), prior: Prior = "uniform"
    ) -> pd.DataFrame:
        """Class probabilities of every row of a dataset.

        Args:
            dataset, modalities: as for :meth:`predict`.
            prior: "uniform", or "train" to expect classes as often as in training.

        Returns:
            A frame (N, C) with the index `id` and a column per class; NaN in rows without any of its modalities.

        Raises:
            ConfigError: the model predicts values.
            FeatureMismatch: the features are not those that it was trained on.
        """
        import pandas as pd

        from emopipe.models.predictor import known_prior

        if not self.classes:
            raise ConfigError(f"the model {self.id} predicts values, not classes", hint="Use predict")
        data = _opened(dataset)
        self._predictor.check_features(data.schema, data.extraction)
        scores = self._predictor.scores(data, None, chosen_modalities(modalities) or None)
        shares = self._predictor.probabilities(scores, known_prior(prior))
        shares[~scores.present.any(axis=1)] = np.nan
        return pd.DataFrame(shares, index=pd.Index(data.ids, name="id"), columns=list(self.classes))

    def evaluate(
        self,
        dataset: AnyPath | Dataset,
        split: str | None = None,
        modalities: Sequence[str] = (),
        prior: Prior = "uniform",
    ) -> Evaluation:
        """Measure it on the labelled rows of a dataset.

        Args:
            dataset, modalities, prior: as for :meth:`predict_proba`.
            split: rows of this split only; None or "all" for all.
        """
        from emopipe.models.data.split_names import split_or_all
        from emopipe.models.evaluation.evaluate import evaluate
        from emopipe.models.predictor import known_prior

        rows = None if split is None else split_or_all(split)
        hidden = chosen_modalities(modalities) or None
        return evaluate(self._predictor, _opened(dataset), rows, hidden, known_prior(prior))


def _opened(dataset: AnyPath | Dataset) -> Dataset:
    from emopipe.models.data.reading import read

    return read(Path(dataset)) if isinstance(dataset, str | os.PathLike) else dataset

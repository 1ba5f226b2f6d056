"""Pictures of what a checkpoint does on a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from emopipe.pipeline.progress import Hook, silent
from emopipe.pipeline.studies.tables import Row, write_csv
from emopipe.pipeline.studies.train import split_or_all

if TYPE_CHECKING:
    from emopipe.models.evaluation.explain import Explanation


def visualize_checkpoint(
    model: str,
    folder: Path,
    out: Path,
    split: str,
    *,
    device: str = "auto",
    offline: bool = False,
    hook: Hook = silent,
) -> list[Path]:
    """Pictures of what a checkpoint does on a dataset.

    Writes `tsne.png` and `.svg` (fused features, coloured by label), `importance.png` and `.svg` (whom the router
    trusts, below who is right; not for a model without unimodal predictions), and `utterances.csv` with the numbers.

    Returns:
        The files.
    """
    from emopipe.models.data import reading
    from emopipe.models.evaluation.explain import agreement, explain, project
    from emopipe.pipeline.backends.backbones import load_predictor
    from emopipe.pipeline.studies import plots

    predictor, name = load_predictor(model, device, offline=offline, hook=hook)
    found = explain(predictor, reading.read(folder), split_or_all(split))
    places = project(found.fused)
    out.mkdir(parents=True, exist_ok=True)
    title = f"Fused features of {predictor.spec.model} {name} on {folder.name}"
    files = plots.scatter(places, found.labels, title, out / "tsne")
    if (found.present.sum(axis=1) > 1).any() and not _is_nan(found):
        title = f"Who is right and who is trusted: {predictor.spec.model} {name} on {folder.name}"
        files += plots.importance(found, agreement(found), title, out / "importance")
    write_csv(out / "utterances.csv", [_utterance(found, places, row) for row in range(len(found.ids))])
    return [*files, out / "utterances.csv"]


def _is_nan(found: Explanation) -> bool:
    return bool(found.importance[0, 0] != found.importance[0, 0])


def _utterance(found: Explanation, places: Any, row: int) -> Row:
    shares = {
        f"{name}_{kind}": float(table[row, column])
        for column, name in enumerate(found.modalities)
        for kind, table in (("importance", found.importance), ("weight", found.weights))
    }
    facts = {"id": found.ids[row], "label": found.labels[row], "predicted": found.predicted[row]}
    return {**facts, **shares, "tsne_1": float(places[row, 0]), "tsne_2": float(places[row, 1])}

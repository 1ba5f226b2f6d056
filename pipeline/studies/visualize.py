"""Pictures of what a checkpoint does on a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emopipe.models.data.split_names import split_or_all
from emopipe.pipeline.progress import Hook, silent
from emopipe.pipeline.studies.tables import Row, write_csv

if TYPE_CHECKING:
    from emopipe.models.evaluation.explain import Explanation


def visualize_checkpoint(
    model: str,
    folder: Path,
    out: Path,
    split: str,
    beside: Sequence[str] = (),
    *,
    device: str = "auto",
    offline: bool = False,
    hook: Hook = silent,
) -> list[Path]:
    """Pictures of what a checkpoint does on a dataset.

    Writes `tsne.png` and `.svg` (fused features, coloured by label), `importance.png` and `.svg` (whom the router
    trusts, below who is right; not for a model without unimodal predictions), and `utterances.csv` with the numbers.

    With other checkpoints beside it also `compared.png` and `.svg`: the fused features of all in one embedding.

    Returns:
        The files.
    """
    from emopipe.models.data import reading
    from emopipe.models.evaluation.explain import agreement, explain, project, project_together
    from emopipe.pipeline.backends.backbones import load_predictor
    from emopipe.pipeline.studies import plots

    predictor, name = load_predictor(model, device, offline=offline, hook=hook)
    explanation = explain(predictor, reading.read(folder), split_or_all(split))
    places = project(explanation.fused)
    out.mkdir(parents=True, exist_ok=True)
    title = f"Fused features of {predictor.spec.model} {name} on {folder.name}"
    files = plots.scatter(places, explanation.labels, title, out / "tsne")
    if (explanation.present.sum(axis=1) > 1).any() and not _is_nan(explanation):
        title = f"Who is right and who is trusted: {predictor.spec.model} {name} on {folder.name}"
        files += plots.importance(explanation, agreement(explanation), title, out / "importance")
    if beside:
        others = [load_predictor(one, device, offline=offline, hook=hook)[0] for one in beside]
        explained = [explanation, *(explain(one, reading.read(folder), split_or_all(split)) for one in others)]
        names = unique_names([model, *beside])
        together = project_together({one: part.fused for one, part in zip(names, explained, strict=True)})
        labels = {one: part.labels for one, part in zip(names, explained, strict=True)}
        title = f"Fused features on {folder.name}, in one embedding"
        files += plots.scatter_side_by_side(together, labels, title, out / "compared")
    write_csv(out / "utterances.csv", [_utterance(explanation, places, row) for row in range(len(explanation.ids))])
    return [*files, out / "utterances.csv"]


def unique_names(models: Sequence[str]) -> list[str]:
    """Names of checkpoints: those of their folders, or their whole paths where these are alike."""
    short = [Path(one).name for one in models]
    return short if len(set(short)) == len(short) else [f"{number}: {one}" for number, one in enumerate(models, 1)]


def _is_nan(explanation: Explanation) -> bool:
    return bool(explanation.importance[0, 0] != explanation.importance[0, 0])


def _utterance(explanation: Explanation, places: Any, row: int) -> Row:
    shares = {
        f"{name}_{kind}": float(table[row, column])
        for column, name in enumerate(explanation.modalities)
        for kind, table in (("importance", explanation.importance), ("weight", explanation.weights))
    }
    facts = {"id": explanation.ids[row], "label": explanation.labels[row], "predicted": explanation.predicted[row]}
    return {**facts, **shares, "tsne_1": float(places[row, 0]), "tsne_2": float(places[row, 1])}

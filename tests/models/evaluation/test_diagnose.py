"""Diagnoses tell planted defects from health."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from emopipe.errors import ConfigError, DatasetError
from emopipe.models import metrics
from emopipe.models.data.dataset import Dataset
from emopipe.models.data.reading import read
from emopipe.models.evaluation.diagnose import (
    Inside,
    ablations,
    alarms,
    by_group,
    closed,
    correlations,
    find_gate,
    gate_use,
    geometry,
    look_inside,
    without_lora,
)
from emopipe.models.evaluation.diagnose import similarities as similar
from emopipe.models.evaluation.explain import explain
from emopipe.models.predictor import Predictor
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import train
from tests.models.conftest import learnable
from tests.models.tiny_backbone import write_backbone

SMALL: dict[str, dict[str, Any]] = {
    "emoe": {"width": 16, "layers": 1, "heads": 2},
    "egmf": {"width": 16, "heads": 2, "pseudo_tokens": 2, "pseudo": "affine"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read(learnable(tmp_path_factory.mktemp("diagnose"), count=80, speakers=5, missing=0.3, words=True))


@pytest.fixture(scope="module")
def predictors(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Predictor]:
    backbone = str(write_backbone(tmp_path_factory.mktemp("backbone")))
    SMALL["egmf"] |= {"backbone": "tiny", "backbone_path": backbone}
    found = {}
    for model, options in SMALL.items():
        for label in ("label", "sentiment"):
            config = TrainConfig(model=model, options=options, label=label, epochs=2, batch_size=16, lr=3e-3)
            found[model, label] = train(data, config).predictor
    return found


# ------------------------------------------------------------------------------------------------------------ the gate


def use(weights: list[list[float]], there: Any = True) -> Any:
    w = np.array(weights, dtype=np.float32)
    return gate_use(w, np.broadcast_to(np.array(there), w.shape), ("a", "b", "c")[: w.shape[1]])


def test_a_gate_that_chooses_is_alive() -> None:
    found = use([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert found.state == "alive" and found.hard == 1.0 and found.entropies.tolist() == pytest.approx([0, 0, 0])
    assert [one.largest for one in found.usage] == pytest.approx([1 / 3] * 3)
    assert found.usage[0].alone == pytest.approx(1 / 3) and found.usage[0].sd == pytest.approx(2**0.5 / 3)


def test_a_gate_that_always_takes_one_branch_is_collapsed() -> None:
    found = use([[0.97, 0.03], [0.95, 0.05], [0.8, 0.2]])
    assert found.state == "collapsed" and found.hard == pytest.approx(2 / 3)


def test_a_gate_that_does_not_look_is_still() -> None:
    found = use([[1 / 3] * 3] * 4)
    assert found.state == "still" and found.entropies.tolist() == pytest.approx([1] * 4)


def test_equal_shares_of_what_is_there_are_still() -> None:
    there = [[True, True, True], [True, True, False], [True, False, False]]
    found = use([[1 / 3] * 3, [0.5, 0.5, 0], [1, 0, 0]], there)
    assert found.state == "still" and found.entropies.tolist() == pytest.approx([1, 1])
    assert [one.rows for one in found.usage] == [2, 2, 1]
    assert found.usage[2].mean == pytest.approx(1 / 3)


def test_without_a_choice_there_is_nothing_to_say() -> None:
    assert use([[1, 0], [0, 1]], [[True, False], [False, True]]) is None


# --------------------------------------------------------------------------------------------------- outputs and tokens


def test_correlations_find_copies_and_ignore_what_never_varies() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 400, 8))
    outputs = np.stack([x + 5, 2 * x + rng.normal(0, 0.1, x.shape) - 9, y + 5, -x], axis=1).astype(np.float32)
    found = correlations(outputs, np.ones((400, 4), dtype=bool))
    assert found[0, 1] > 0.99 and abs(found[0, 2]) < 0.1 and found[0, 3] == pytest.approx(-1)
    assert (found == found.T).all() and (np.diag(found) == 1).all()
    there = np.ones((400, 4), dtype=bool)
    there[2:, 1] = False
    assert np.isnan(correlations(outputs, there)[0, 1])
    assert np.isnan(correlations(np.ones((9, 2, 3), np.float32), np.ones((9, 2), dtype=bool))[0, 1])


def test_geometry_survives_rotation_and_not_shuffling() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)).astype(np.float32)
    turned = np.concatenate([x, x], axis=1)
    assert geometry(x, turned) == pytest.approx(1)
    assert abs(geometry(x, rng.permutation(turned))) < 0.1
    assert np.isnan(geometry(x[:2], x[:2]))


# ------------------------------------------------------------------------------------------------------ trained models


@pytest.mark.parametrize("label", ["label", "sentiment"])
@pytest.mark.parametrize("model", ["emoe", "egmf"])
def test_a_trained_model_is_looked_into(predictors: Any, data: Dataset, model: str, label: str) -> None:
    predictor = predictors[model, label]
    inside = look_inside(predictor, data, "valid", batch_size=5)
    count, names = len(inside.rows), predictor.spec.modalities
    assert (data.split[inside.rows] == "valid").all() and inside.outputs.shape == (count, 3, 16)
    scores = predictor.scores(data, inside.rows)
    assert np.allclose(inside.logits, scores.logits, atol=1e-4, equal_nan=True)
    if model == "emoe":
        assert inside.kind == "modality" and inside.branches == names and not similar(inside, names)
        assert np.allclose(inside.mixing, scores.weights, atol=1e-5)
    else:
        signals = inside.present[:, 1:].any(axis=1)
        assert inside.kind == "expert" and list(inside.weights) == ["first stage", "second stage"]
        assert np.allclose(inside.mixing.sum(axis=1), signals) and (inside.mixed == signals).all()
        found = {one.compared: one for one in similar(inside, names)}
        assert len(found) == 6 and found["f before and after the experts"].rows == signals.sum()
        assert found["pseudo token and face features"].rows == inside.present[:, 1].sum()
        assert all((np.abs(one.values) <= 1 + 1e-9).all() for one in found.values())


def test_what_a_product_answers_is_what_is_looked_into(predictors: Any, data: Dataset) -> None:
    plain, both = predictors["emoe", "label"], data.select(["face", "voice"])
    spec = replace(plain.spec, temperature={"": 1.0, "face+voice": {"face": 2.0, "voice": 0.5}})
    pooled = Predictor(spec, plain.module)
    inside = look_inside(pooled, both)
    assert np.allclose(inside.logits, pooled.scores(both, inside.rows).logits, atol=1e-5)
    assert not np.allclose(inside.logits, look_inside(plain, both).logits, atol=1e-2)


def test_speakers_are_read_as_for_an_answer(data: Dataset) -> None:
    config = TrainConfig("emoe", SMALL["emoe"] | {"relative": True}, epochs=2, batch_size=16, lr=3e-3, device="cpu")
    predictor = train(data, config).predictor
    inside, explanation = look_inside(predictor, data), explain(predictor, data)
    answered = predictor.scores(data, inside.rows)
    assert np.allclose(inside.logits, answered.logits, atol=1e-5)
    assert np.allclose(explanation.weights, answered.weights, atol=1e-5)
    unaware = predictor.module(data.batch(inside.rows, predictor.spec.modalities)).logits.detach().numpy()
    assert not np.allclose(inside.logits, unaware, atol=1e-2)


def test_input_means_are_those_of_the_steps(predictors: Any, data: Dataset) -> None:
    inside = look_inside(predictors["egmf", "label"], data)
    for number in (0, 7, 19):
        sample = data.sample(int(inside.rows[number]))
        for name, means in inside.inputs.items():
            steps = sample.features[name]
            expected = np.zeros(means.shape[1]) if steps is None else steps.mean(axis=0)
            assert np.allclose(means[number], expected, atol=1e-3)


def test_ablations_hide_modalities_and_close_experts(predictors: Any, data: Dataset) -> None:
    predictor = predictors["egmf", "label"]
    inside = look_inside(predictor, data)
    found = ablations(predictor, data, inside, "accuracy")
    experts = ["expert d/8", "expert d/4", "expert d/2", "all experts"]
    assert [one.part for one in found] == ["text", "face", "voice", *experts, "LoRA"]
    truth = data.labels("label")
    for column, one in enumerate(found[:3]):
        rows = inside.rows[inside.present[:, column] & (inside.present.sum(axis=1) > 1)]
        kept = [name for name in predictor.spec.modalities if name != one.part]
        for modalities, value in ((None, one.whole), (kept, one.without)):
            said = np.array(predictor.spec.classes)[predictor.scores(data, rows, modalities).logits.argmax(axis=1)]
            assert value == pytest.approx((said == truth[rows]).mean())
        assert one.rows == len(rows) and one.low <= one.difference <= one.high and one.failed == 0
    gate = find_gate(predictor)
    assert gate is not None and gate.open.all()
    with closed(gate, [0, 1, 2]):
        assert (look_inside(predictor, data).mixing == 0).all()
    assert gate.open.all()


def test_values_that_were_not_said_are_counted_not_averaged(predictors: Any, data: Dataset) -> None:
    emoe = predictors["emoe", "sentiment"]
    inside = look_inside(emoe, data)
    found = ablations(emoe, data, inside, "mae")
    assert [one.part for one in found] == ["text", "face", "voice"] and all(one.failed == 0 for one in found)
    inside.logits[inside.present.all(axis=1)] = np.nan
    for one in ablations(emoe, data, inside, "mae"):
        assert 0 < one.failed < 1 and np.isfinite([one.whole, one.without, one.low, one.high]).all()
    inside.logits[:] = np.nan
    assert all(one.failed == 1 and np.isnan(one.difference) for one in ablations(emoe, data, inside, "mae"))


def test_a_model_of_words_alone_has_no_experts_to_ask(predictors: Any, data: Dataset) -> None:
    config = TrainConfig(model="egmf", options=SMALL["egmf"], modalities=("text",), epochs=1, batch_size=32)
    predictor = train(data, config).predictor
    inside = look_inside(predictor, data)
    assert inside.kind == "expert" and len(inside.branches) == 3
    assert not inside.mixed.any() and gate_use(inside.mixing, inside.there, inside.branches) is None
    assert similar(inside, ("text",)) == []
    assert [one.part for one in ablations(predictor, data, inside, "uar")] == ["LoRA"]


def test_each_group_is_measured_on_its_own_utterances(predictors: Any, data: Dataset) -> None:
    predictor = predictors["egmf", "label"]
    inside = look_inside(predictor, data)
    names = np.array(["zh" if number % 3 else "en" for number in range(len(inside.rows))], dtype=object)
    names[:4] = ["fr", "fr", None, "fr"]
    groups = by_group(predictor, data, inside, "uar", names, apart=False)
    assert [one.name for one in groups] == ["en", "zh"]

    def uar(rows: Any) -> float:
        said = np.array(predictor.spec.classes)[predictor.scores(data, rows).logits.argmax(axis=1)]
        return metrics.classification(data.labels("label")[rows], said)["uar"]

    for group in groups:
        rows = inside.rows[names == group.name]
        lora = next(part for part in group.parts if part.part == "LoRA")
        assert group.rows == lora.rows == len(rows)
        assert group.value == pytest.approx(uar(rows)) and group.low <= group.value <= group.high
        with without_lora(predictor):
            assert lora.without == pytest.approx(uar(rows))


def test_what_cannot_be_diagnosed_is_refused(predictors: Any, data: Dataset) -> None:
    with pytest.raises(DatasetError, match="3 are needed"):
        look_inside(predictors["emoe", "label"], data, "nowhere")
    plain = train(data, TrainConfig(model="lf-dnn", options={"hidden": 8}, epochs=1)).predictor
    with pytest.raises(ConfigError, match="mixes nothing"):
        look_inside(plain, data)
    emoe = predictors["emoe", "label"]
    with pytest.raises(ConfigError, match="mae"):
        ablations(emoe, data, look_inside(emoe, data), "mae")
    assert find_gate(emoe) is None


def inside_of(outputs: np.ndarray, weights: np.ndarray, inputs: np.ndarray) -> Inside:
    """Three experts at work on utterances that have a voice."""
    count = len(outputs)
    there = np.ones((count, 3), dtype=bool)
    f = inputs.astype(np.float32)
    tokens = {"pseudo": f, "words": np.ones((count, 2), np.float32), "f": f, "enhanced": f}
    rows, present, logits = np.arange(count), np.ones((count, 1), dtype=bool), np.zeros((count, 2), np.float32)
    stages = {"second stage": weights.astype(np.float32)}
    experts = ("d/8", "d/4", "d/2")
    return Inside(
        "expert", experts, rows, present, there, stages, outputs.astype(np.float32), logits, tokens, {"voice": f}
    )


def test_the_alarms_of_the_paper_ring() -> None:
    rng = np.random.default_rng(0)
    x, base = rng.normal(size=(40, 3, 16)), rng.normal(size=(40, 2))
    sharp = rng.dirichlet((0.5, 0.5, 0.5), 40)
    quiet = inside_of(x, sharp, base)
    assert alarms(quiet, ("voice",)) == []
    uniform = alarms(inside_of(x, np.full((40, 3), 1 / 3), base), ("voice",))
    assert len(uniform) == 1 and "gate is uniform" in uniform[0] and "1.000" in uniform[0]
    alike = x.copy()
    alike[:, 1] = 10 + 0.1 * x[:, 1]  # the same of every utterance: centred, the two do not correlate
    alike[:, 0] = 10 + 0.1 * x[:, 0]
    alike[:, 2] = -alike[:, 0]
    rung = alarms(inside_of(alike, sharp, base), ("voice",))
    assert ["the same" in one for one in rung] == [True, False, False] and "the opposite" in rung[1]
    assert abs(correlations(alike, np.ones((40, 3), dtype=bool))[0, 1]) < 0.5
    lost = replace(quiet, tokens={**quiet.tokens, "pseudo": rng.normal(size=(40, 2)).astype(np.float32)})
    assert ["lost what voice says" in one for one in alarms(lost, ("voice",))] == [True]

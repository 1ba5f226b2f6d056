"""How far a speaker varies decides how much the answer relative to the speaker counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emopipe.models import checkpoint
from emopipe.models.data.dataset import Dataset, collate
from emopipe.models.data.reading import read
from emopipe.models.networks.emoe import Emoe
from emopipe.models.networks.variation import SEVERAL, Variation
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import train
from tests.models.conftest import CLASSES, write_dataset

WIDTH = 8
SETTINGS = TrainConfig(
    model="emoe",
    device="cpu",
    epochs=1,
    select="last",
    options={"width": 8, "layers": 1, "heads": 2, "relative": True, "relative_share": "varied"},
)


def speakers(
    folder: Path, shown: dict[str, list[str]], seed: int = 0, apart: float = 5.0, readings: int = 1
) -> Dataset:
    """Speakers who show these classes in turn; half of the features tell them, and all differ between speakers.

    Every utterance is read so many times, each time as that of another speaker.
    """
    rng = np.random.default_rng(seed)
    directions = 3 * np.random.default_rng(1).normal(size=(len(CLASSES), WIDTH)) * (np.arange(WIDTH) % 2)
    manifest: list[dict[str, Any]] = []
    steps: dict[str, np.ndarray] = {}
    for speaker, classes in shown.items():
        offset = apart * rng.normal(size=WIDTH)
        for number, name in enumerate(classes):
            key = f"{speaker}-{number}"
            steps[key] = offset + directions[CLASSES.index(name)] + rng.normal(size=(3, WIDTH))
            for reading in range(readings):
                row = {"id": f"{key}-{reading}", "speaker": f"{speaker}-{reading}", "voice": key, "label": name}
                manifest.append({**row, "split": "train"})
    return read(write_dataset(folder, manifest, {"voice": steps}, {"voice": WIDTH}))


def with_still_faces(folder: Path) -> Dataset:
    """Six speakers whose voices show four classes six times, and whose faces always the same."""
    rng, manifest = np.random.default_rng(2), []
    steps: dict[str, dict[str, np.ndarray]] = {"face": {}, "voice": {}}
    for speaker in range(6):
        for number, name in enumerate(list(CLASSES) * 6):
            key = f"{speaker}-{number}"
            steps["voice"][key] = 5 * speaker + 3 * np.eye(WIDTH)[CLASSES.index(name)] + rng.normal(size=(3, WIDTH))
            steps["face"][key] = 5 * speaker + rng.normal(size=(3, WIDTH))
            row = {"id": key, "speaker": f"s{speaker}", "face": key, "voice": key, "label": name, "split": "train"}
            manifest.append(row)
    return read(write_dataset(folder, manifest, steps, {"face": WIDTH, "voice": WIDTH}))


def training(folder: Path) -> Dataset:
    """Six speakers who show four classes each, six times."""
    return speakers(folder, {f"s{number}": list(CLASSES) * 6 for number in range(6)})


def targets(data: Dataset) -> np.ndarray:
    return np.array([CLASSES.index(str(name)) for name in data.column("label")])


def told(variation: Variation, data: Dataset) -> torch.Tensor:
    return variation(data.batch(np.arange(len(data)), relative=True).speaker_variances["voice"])


def test_it_tells_new_speakers_who_vary_from_those_who_show_one_emotion(tmp_path: Path) -> None:
    data = training(tmp_path / "training")
    variation = Variation(WIDTH)
    facts = variation.fit("voice", data, targets(data), 0)
    assert facts["slope"] > 0 and len(variation.read) == 2 and (variation.read % 2 == 1).all()
    new = speakers(tmp_path / "new", {"varied": list(CLASSES) * 3, "sad": ["sadness"] * 12, "few": ["anger"] * 3}, 5)
    varied, sad, few = told(variation, new).split([12, 12, 3])
    assert varied.min() > 0.6 and sad.max() < 0.4 and few.isnan().all()


def test_it_does_not_depend_on_what_is_usual_for_the_speaker(tmp_path: Path) -> None:
    data = training(tmp_path)
    variation = Variation(WIDTH)
    variation.fit("voice", data, targets(data), 0)
    others = {f"s{number}": list(CLASSES) * 6 for number in range(6)}
    near, far = (told(variation, speakers(tmp_path / f"{apart}", others, 7, apart)) for apart in (5.0, 50.0))
    assert near.min() > 0.6
    torch.testing.assert_close(near, far, atol=1e-4, rtol=1e-4)


def test_without_speakers_of_several_classes_nothing_is_told(tmp_path: Path) -> None:
    data = speakers(tmp_path, {name: [name] * 8 for name in CLASSES} | {"two": ["anger", "sadness"] * 4})
    assert SEVERAL == 3
    variation = Variation(WIDTH)
    assert variation.fit("voice", data, targets(data), 0) == {}
    assert told(variation, data).isnan().all()
    assert variation.fit("face", data, targets(data), 0) == {}


def test_a_trained_model_weighs_its_two_answers_by_it_and_a_checkpoint_keeps_that(tmp_path: Path) -> None:
    data = training(tmp_path / "training")
    trained = train(data, SETTINGS)
    new = speakers(tmp_path / "new", {"varied": list(CLASSES) * 3, "sad": ["sadness"] * 12, "few": ["anger"] * 3}, 5)
    net = trained.predictor.module
    assert isinstance(net, Emoe) and set(net.variation) == {"voice"}
    batch = new.batch(np.arange(len(new)), relative=True)
    with torch.inference_mode():
        mixed, relative = net(batch).logits.softmax(1), net._network(batch).logits.softmax(1)
        plain = net._network(replace(batch, speaker_means={})).logits.softmax(1)
        varies = net.variation["voice"](batch.speaker_variances["voice"]).nan_to_num(nan=0.5).unsqueeze(1)
    share = 0.25 + 0.5 * varies
    torch.testing.assert_close(mixed, (1 - share) * plain + share * relative)
    checkpoint.save(tmp_path / "model", trained.predictor, "")
    again = checkpoint.load(tmp_path / "model")
    assert np.array_equal(again.scores(new, None).logits, trained.predictor.scores(new, None).logits)


def test_what_is_absent_tells_nothing_of_how_far_a_speaker_varies(tmp_path: Path) -> None:
    net = train(training(tmp_path), SETTINGS).predictor.module
    assert isinstance(net, Emoe)
    data = training(tmp_path)
    batch = data.batch(np.arange(len(data)), relative=True)
    absent = replace(batch, present=torch.zeros_like(batch.present))
    assert (net._relative_share(absent, ["face", "voice"]) == 0.5).all()
    alone = collate([data.sample(0)], data.schema)
    assert net._relative_share(alone, ["face", "voice"]).tolist() == [[0.5]]


def test_what_a_modality_says_beside_others_is_what_it_says_alone(tmp_path: Path) -> None:
    data = with_still_faces(tmp_path)
    predictor = train(data, SETTINGS).predictor
    shares = predictor.module.variation  # type: ignore[union-attr]
    variances = data.batch(np.arange(len(data)), relative=True).speaker_variances
    face, voice = (shares[name](variances[name]) for name in ("face", "voice"))  # type: ignore[operator, index]
    assert (voice - face).abs().max() > 0.01
    together = predictor.scores(data, None)
    for name in ("face", "voice"):
        alone = predictor.scores(data, None, [name])
        assert np.allclose(together.unimodal[name], alone.logits, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_share_can_be_set_for_all(tmp_path: Path, share: float) -> None:
    options = {**SETTINGS.options, "relative_share": share}
    net = train(training(tmp_path), replace(SETTINGS, options=options)).predictor.module
    assert isinstance(net, Emoe) and not hasattr(net, "variation")
    batch = training(tmp_path).batch(np.arange(4), relative=True)
    assert net._relative_share(batch, ["face", "voice"]).tolist() == [[share]] * 4

"""Settings follow the data where they are not given, and what the data cannot show is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from emopipe.models.data.dataset import Dataset
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import train
from emopipe.models.training.suitable import FEW, Counts, remarks, suit

PLAIN = TrainConfig(device="cpu")


def changed(data: Dataset, **columns: Sequence[Any]) -> Dataset:
    table = data.manifest
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(list(values)))
    return data.with_manifest(table)


@pytest.fixture
def few(make: Callable[..., Dataset]) -> Dataset:
    return make(count=48, speakers=4, splits=False)


def test_counts_are_of_what_is_trained_on(few: Dataset) -> None:
    counts = Counts.of(few, PLAIN)
    assert (counts.clips, counts.speakers, counts.validated) == (48, 4, False)
    assert counts.classes == {name: (12, 4) for name in ("anger", "happiness", "neutral", "sadness")}
    split = ["test"] * 12 + ["valid"] * 12 + ["train"] * 24
    tested = Counts.of(changed(few, split=split), PLAIN)
    assert tested.clips == 36 and tested.validated
    assert Counts.of(few, TrainConfig(label="sentiment")).classes == {}


@pytest.mark.slow
def test_few_clips_get_settings_for_few_and_every_choice_is_told(few: Dataset) -> None:
    config, told = suit(PLAIN, few, None, ())
    assert config.select == "last" and config.batch_size < PLAIN.batch_size
    assert config.options["relative"] and config.options["width"] < 96
    assert len(told) == 1 and told[0].startswith("48 clips, 4 speakers, 4 classes: ")
    assert all(f"{name} = " in told[0] for name in ("epochs", "batch_size", "select", "relative", "width"))
    assert len(train(few, config).split[1]) == 0


def test_what_is_given_stays(few: Dataset) -> None:
    asked = TrainConfig(epochs=3, options={"width": 16}, device="cpu")
    config, told = suit(asked, few, None, {"epochs", "width", "select"})
    assert config.epochs == 3 and config.options["width"] == 16 and config.select == "best"
    assert "epochs" not in told[0] and "width" not in told[0]


def test_a_checkpoint_to_begin_with_keeps_its_size(few: Dataset) -> None:
    start = train(few, TrainConfig(options={"width": 16, "heads": 2}, epochs=1, select="last", device="cpu")).predictor
    config, _ = suit(TrainConfig(options=start.spec.options), few, start, ())
    assert config.options["width"] == 16 and config.options["relative"]
    assert train(few, TrainConfig(**{**vars(config), "epochs": 1}), start=start).predictor.spec.options["relative"]


def test_nothing_is_read_relative_to_speakers_who_each_show_one_class(few: Dataset) -> None:
    speakers = {"anger": "anna", "happiness": "ben", "neutral": "carla", "sadness": "dora"}
    one_each = changed(few, speaker=[speakers[label] for label in few.labels("label")])
    assert not suit(PLAIN, one_each, None, ())[0].options["relative"]
    assert suit(TrainConfig(label="sentiment"), one_each, None, ())[0].options["relative"]


def test_rows_to_validate_on_still_choose_the_epoch(few: Dataset) -> None:
    config, _ = suit(PLAIN, changed(few, split=["valid"] * 12 + ["train"] * 36), None, ())
    assert config.select == "best"


def test_many_clips_and_a_linear_model_stay_as_they_are(make: Callable[..., Dataset], few: Dataset) -> None:
    assert suit(PLAIN, make(count=FEW, speakers=20, splits=False), None, ()) == (PLAIN, [])
    linear = TrainConfig("linear")
    assert suit(linear, few, None, ()) == (linear, [])


@pytest.mark.parametrize(
    ("speakers", "words"),
    [
        (["anna"] * 48, "one speaker"),
        (["anna", "ben"] * 24, "two speakers"),
        ([None] * 48, "no speakers are named"),
    ],
)
def test_hardly_any_speakers_are_warned_of_and_trained_on(few: Dataset, speakers: list[Any], words: str) -> None:
    data = changed(few, speaker=speakers)
    assert any(words in remark for remark in remarks(data, PLAIN))
    config, _ = suit(PLAIN, data, None, {"epochs"})
    short = TrainConfig(**{**vars(config), "epochs": 1})
    assert len(train(data, short).split[0]) == 48


def test_rows_that_cannot_be_learned_from_are_told(few: Dataset) -> None:
    labels = [None] * 2 + few.labels("label").tolist()[2:]
    assert remarks(changed(few, label=labels), PLAIN) == ["2 rows have no label and are left out"]
    blind = changed(few, face=[None] * 4 + few.column("face").tolist()[4:])
    assert "4 rows have no face and are left out" in remarks(blind, TrainConfig(modalities=("face",)))


def test_rare_classes_and_classes_of_one_speaker_are_warned_of(few: Dataset) -> None:
    labels = few.labels("label").tolist()
    labels[:3] = ["rare"] * 3
    told = remarks(changed(few, label=labels), PLAIN)
    assert any("'rare' has 3 clips" in remark for remark in told)
    owned = ["bliss" if name == "s1" else label for name, label in zip(few.speakers, labels, strict=True)]
    assert any("'bliss' is of one speaker alone" in remark for remark in remarks(changed(few, label=owned), PLAIN))
    assert remarks(few, PLAIN) == []


@pytest.mark.parametrize("relative", [True, False])
def test_what_is_peculiar_to_a_speaker_does_not_matter_where_features_are_read_relative(
    make: Callable[..., Dataset], relative: bool
) -> None:
    options = {"width": 16, "layers": 1, "heads": 2, "relative": relative}
    config = TrainConfig(options=options, epochs=2, batch_size=16, select="last", device="cpu")
    same, other = (make(count=48, speakers=4, splits=False).select(["voice"]) for _ in range(2))
    predictor = train(same, config).predictor
    store = other._stores["voice"]
    for row, name in enumerate(other.speakers):
        offset = np.random.default_rng(int(name[1:])).normal(size=20)
        store.sequence(int(other._numbers["voice"][row]))[:] += (40 * offset).astype(np.float32)
    alike = np.abs(predictor.scores(same).logits - predictor.scores(other).logits).max() < 1e-3
    assert alike == relative

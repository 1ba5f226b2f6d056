"""Checkpoints come back as they were, refuse what does not fit, and never unpickle."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from emopipe.constants import EXPRESSION_ENCODER
from emopipe.errors import CheckpointError, FeatureMismatch, OutputError
from emopipe.models import checkpoint, sealed
from emopipe.models.checkpoint import identify, load, save
from emopipe.models.data.dataset import Dataset, Sample
from emopipe.models.evaluation.evaluate import evaluate
from emopipe.models.predictor import Predictor
from emopipe.models.sealed import check_features
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import train
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.execution.jobs import extraction_overrides

RENAME = Path.rename
QUICK = TrainConfig(epochs=2, lr=3e-3, options={"width": 16, "layers": 1, "heads": 2, "router_width": 8})


@pytest.fixture(scope="module")
def predictor(partial: Dataset) -> Predictor:
    return train(partial, QUICK).predictor


@pytest.fixture
def folder(predictor: Predictor, tmp_path: Path) -> Path:
    save(tmp_path / "model", predictor, "# A card\n")
    return tmp_path / "model"


def samples(dataset: Dataset, count: int = 20) -> list[Sample]:
    return [dataset.sample(row) for row in range(count)]


def test_a_loaded_checkpoint_predicts_the_same(predictor: Predictor, folder: Path, partial: Dataset) -> None:
    again = load(folder)
    assert again.predict(samples(partial)) == predictor.predict(samples(partial))
    assert again.spec.modalities == predictor.spec.modalities == ("text", "face", "voice")
    assert identify(again) == identify(predictor) == json.loads((folder / "config.json").read_text())["id"]


def test_the_folder_holds_weights_configuration_and_card_only(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert (folder / "README.md").read_text() == "# A card\n"
    config = json.loads((folder / "config.json").read_text())
    assert config["format"] == 1
    assert config["extraction"]["voice"]["backend"] == "librosa"
    assert config["training"]["dataset"] and config["training"]["config"]["seed"] == 0
    assert config["training"]["versions"]["torch"] == torch.__version__


def test_saving_again_replaces_and_leaves_nothing_behind(predictor: Predictor, folder: Path) -> None:
    (folder / "stray").write_text("old")
    save(folder, Predictor(replace(predictor.spec, threshold=0.5), predictor.module), "new")
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert not (folder / "stray").exists()
    assert load(folder).spec.threshold == 0.5


def full_disk(path: Path, *arguments: object, **options: object) -> int:
    raise OSError("no space left")


def rename_of_the_fresh_folder_fails(path: Path, target: Path) -> Path:
    if ".partial-" in path.name:
        raise OSError("no space left")
    return RENAME(path, target)


@pytest.mark.parametrize(("step", "failure"), [("write_text", full_disk), ("rename", rename_of_the_fresh_folder_fails)])
def test_a_failure_while_saving_keeps_the_old(
    predictor: Predictor, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str, failure: object
) -> None:
    before = (folder / "config.json").read_bytes()
    monkeypatch.setattr(Path, step, failure)
    with pytest.raises(OutputError, match="no space"):
        save(folder, Predictor(replace(predictor.spec, threshold=0.5), predictor.module), "new")
    monkeypatch.undo()
    assert (folder / "config.json").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def cut_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-10])


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def break_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def change_classes(folder: Path) -> None:
    edit(folder, classes=["a", "b", "c", "d"])


def fewer_classes(folder: Path) -> None:
    edit(folder, classes=["a", "b"])


def unknown_model(folder: Path) -> None:
    edit(folder, model="nobody")


def newer_format(folder: Path) -> None:
    edit(folder, format=99)


def pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps({"weight": 1}))


@pytest.mark.parametrize("text", ['"format"', "[1]", "3", '{"format": 1, "id": "\\ud800"}', "[" * 100_000])
def test_a_configuration_that_is_no_table_of_text_is_damaged(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    for read in (load, sealed.read_sealed):
        with pytest.raises(CheckpointError, match="EMO-401"):
            read(folder)


@pytest.mark.parametrize("name", ["options", "schema", "extraction", "priors", "training"])
def test_a_configuration_with_text_in_the_place_of_a_table_is_damaged(folder: Path, name: str) -> None:
    edit(folder, **{name: "text"})
    for read in (load, sealed.read_sealed, checkpoint.read_spec):
        with pytest.raises(CheckpointError, match=f"{name} in config.json is not a table"):
            read(folder)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_weights, "the weights are not those"),
        (pickled_weights, "the weights are not those"),
        (remove_weights, "weights cannot be read"),
        (break_json, "config.json cannot be read"),
        (change_classes, "configuration was changed"),
        (fewer_classes, "do not fit"),
        (unknown_model, "do not fit"),
        (newer_format, "format 99, this version reads 1"),
    ],
)
def test_damage_is_reported_with_a_hint(folder: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=words) as caught:
        load(folder)
    assert caught.value.hint


def test_a_missing_checkpoint_says_where_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint here") as caught:
        load(tmp_path / "nothing")
    assert "emopipe train" in caught.value.hint


def test_shipped_checkpoints_are_found_by_name(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed, "SHIPPED", tmp_path)
    save(tmp_path / "emopipe-test", predictor, "")
    assert checkpoint.shipped() == ["emopipe-test"]
    assert identify(load("emopipe-test")) == identify(predictor)


@pytest.mark.parametrize("name", ["emopipe-default-1", "emopipe-egmf"])
def test_a_checkpoint_sealed_before_the_speaker_encoder_hears_without_it(name: str) -> None:
    read = sealed.read_sealed(name)
    assert not any(one.startswith("campplus") for one in read.schema["voice"])
    assert ExtractionConfig.from_dict(read.extraction).voice.speaker_encoder == ""


def test_a_checkpoint_is_verified_without_its_network(predictor: Predictor, tmp_path: Path) -> None:
    save(tmp_path, predictor, "")
    assert sealed.read_sealed(tmp_path).id == identify(predictor)
    assert sealed.read_sealed(tmp_path).modalities == predictor.spec.modalities
    config = (tmp_path / "config.json").read_text("utf-8")
    (tmp_path / "config.json").write_text(config.replace('"classification"', '"regression"'), "utf-8")
    with pytest.raises(CheckpointError, match="was changed"):
        sealed.read_sealed(tmp_path)
    (tmp_path / "config.json").write_text(config, "utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"other")
    with pytest.raises(CheckpointError, match="not those the configuration names"):
        sealed.read_sealed(tmp_path)


def test_pickle_is_never_used(
    predictor: Predictor, partial: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(AssertionError):
        pickle.load(io.BytesIO(b""))
    save(tmp_path / "m", predictor, "")
    load(tmp_path / "m").predict(samples(partial, 2))
    train(partial, replace(QUICK, epochs=1), state=tmp_path / "s")
    train(partial, replace(QUICK, epochs=1), state=tmp_path / "s")


class TestPredictions:
    def test_are_complete_and_consistent(self, predictor: Predictor, partial: Dataset) -> None:
        for sample, found in zip(samples(partial), predictor.predict(samples(partial), batch_size=7), strict=True):
            there = {name for name in partial.modalities if sample.has(name)}
            assert set(found.weights) == set(found.unimodal) == there
            assert sum(found.weights.values()) == pytest.approx(1, abs=1e-5)
            assert sum(found.probabilities.values()) == pytest.approx(1)
            assert found.label == max(found.probabilities, key=lambda name: found.probabilities[name])
            assert found.confidence == found.probabilities[found.label]
            assert found.value is None and not found.abstained
            assert all(sum(p.values()) == pytest.approx(1) for p in found.unimodal.values())

    def test_without_evidence_there_is_none(self, predictor: Predictor, partial: Dataset) -> None:
        empty = Sample({"text": None, "face": np.zeros((0, 6), np.float32)})
        one, other = predictor.predict([empty, partial.sample(0)])
        assert one.label is None and one.probabilities == {} and one.weights == {} and one.abstained
        assert other == predictor.predict([partial.sample(0)])[0] or other.label is not None

    def test_without_each_modality_are_those_of_samples_that_lack_it(
        self, predictor: Predictor, partial: Dataset
    ) -> None:
        asked = samples(partial)
        for sample, found in zip(asked, predictor.predict(asked, batch_size=7, leave_one_out=True), strict=True):
            there = {name for name in partial.modalities if sample.has(name)}
            assert set(found.without) == (there if len(there) > 1 else set())
            for name, shares in found.without.items():
                rest = replace(sample, features={**sample.features, name: None})
                assert shares == pytest.approx(predictor.predict([rest])[0].probabilities, abs=1e-5)
        whole = predictor.predict(asked, batch_size=7)
        assert all(one.without == {} for one in whole)
        again = predictor.predict(asked, batch_size=7, leave_one_out=True)
        assert [replace(one, without={}) for one in again] == whole

    def test_of_nothing_are_nothing(self, predictor: Predictor) -> None:
        assert predictor.predict([]) == []

    def test_of_a_regression_are_values(self, shared: Dataset) -> None:
        found = train(shared, replace(QUICK, epochs=1, label="sentiment")).predictor
        one = found.predict([shared.sample(0), Sample({})], leave_one_out=True)
        assert set(one[0].without["text"]) == {"value"} and one[1].without == {}
        assert isinstance(one[0].value, float) and one[0].label is None and one[0].confidence is None
        assert set(one[0].unimodal) == {"text", "face", "voice"}
        assert one[1].value is None and one[1].abstained

    def test_below_the_threshold_abstain_but_say_what_they_would(self, predictor: Predictor, partial: Dataset) -> None:
        shy = Predictor(replace(predictor.spec, threshold=1.1), predictor.module)
        found = shy.predict([partial.sample(0)])[0]
        assert found.abstained and found.label is not None

    def test_are_as_sure_as_the_temperature_of_their_modalities_says(
        self, predictor: Predictor, partial: Dataset, tmp_path: Path
    ) -> None:
        warm = replace(predictor.spec, temperature={"": 3.0, "voice": 0.5})
        save(tmp_path / "warm", Predictor(warm, predictor.module), "")
        again, cold = load(tmp_path / "warm"), Predictor(replace(predictor.spec, temperature=1.0), predictor.module)
        for names, temperature in ((("voice",), 0.5), (("face", "voice"), 3.0)):
            scores = cold.scores(partial, None, names)
            rows = scores.present.sum(1) == len(names)
            assert rows.any()
            expected = np.log(cold.probabilities(scores))[rows] / temperature
            expected -= np.logaddexp.reduce(expected, 1)[:, None]
            assert np.allclose(np.log(again.probabilities(scores))[rows], expected)

    def test_tell_of_each_modality_what_it_says_alone_as_sure_as_if_it_were_alone(
        self, predictor: Predictor, partial: Dataset
    ) -> None:
        spec = replace(predictor.spec, temperature={"": 3.0, "face": 2.0, "voice": 0.5})
        warm = Predictor(spec, predictor.module)
        features = next(one.features for one in samples(partial) if one.has("face") and one.has("voice"))
        both = warm.predict([Sample({name: features[name] for name in ("face", "voice")})])[0]
        for name in ("face", "voice"):
            alone = warm.predict([Sample({name: features[name]})])[0]
            assert both.unimodal[name] == pytest.approx(alone.probabilities, abs=1e-5)

    def test_of_modalities_with_a_temperature_each_are_the_product_of_what_each_says(
        self, predictor: Predictor, partial: Dataset, tmp_path: Path
    ) -> None:
        pool = {"face": 2.0, "voice": 0.5}
        spec = replace(predictor.spec, temperature={"": 1.0, "face+voice": pool})
        save(tmp_path / "pool", Predictor(spec, predictor.module), "")
        pooled = load(tmp_path / "pool")
        plain, scores = (one.scores(partial, None, ("face", "voice")) for one in (predictor, pooled))
        both = scores.present.sum(1) == 2
        assert both.any() and not both.all()
        product = sum(log_softmax(plain.unimodal[name], 1) / temperature for name, temperature in pool.items())
        assert np.allclose(np.log(pooled.probabilities(scores))[both], log_softmax(product, 1)[both], atol=1e-5)
        assert np.allclose(scores.logits[~both], plain.logits[~both])
        assert np.allclose(scores.weights.sum(1)[both], 1, atol=1e-5) and not scores.weights[both, 0].any()
        strength = [log_softmax(plain.unimodal[name], 1)[both].std(1, ddof=1) / pool[name] for name in pool]
        assert np.allclose(scores.weights[both, 2], strength[1] / (strength[0] + strength[1]), atol=1e-4)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            alone = pooled.scores(partial, None, ("voice",))
        assert np.array_equal(alone.logits, predictor.scores(partial, None, ("voice",)).logits)

    def test_do_not_depend_on_their_company(self, predictor: Predictor, partial: Dataset) -> None:
        together = predictor.predict(samples(partial))
        for sample, one in zip(samples(partial), together, strict=True):
            alone = predictor.predict([sample])[0]
            assert alone.label == one.label
            assert alone.confidence == pytest.approx(one.confidence, abs=1e-4)


class TestFeatureCheck:
    def test_the_features_of_training_pass(self, predictor: Predictor, partial: Dataset) -> None:
        predictor.check_features(partial.schema, partial.extraction)
        predictor.check_features(partial.select(["face"]).schema, partial.extraction)

    def test_another_backend_is_refused_with_both_sides(self, predictor: Predictor, partial: Dataset) -> None:
        other = {**partial.extraction, "face": {**partial.extraction["face"], "backend": "pyfeat"}}
        with pytest.raises(FeatureMismatch, match=r'face\.backend: trained on "mediapipe", offered "pyfeat"') as caught:
            predictor.check_features(partial.schema, other)
        assert caught.value.hint

    def test_every_difference_is_named(self, predictor: Predictor, partial: Dataset) -> None:
        schema = {**partial.schema, "voice": ("a", "b"), "text": ("x", *partial.schema["text"][1:])}
        other = {**partial.extraction, "voice": {"backend": "librosa", "hop": 0.02}}
        with pytest.raises(FeatureMismatch) as caught:
            predictor.check_features(schema, other)
        words = str(caught.value)
        assert "voice: trained on 20 features, offered 2" in words
        assert "text: feature 0 was 'text_0' in training, offered 'x'" in words
        assert "voice.hop: trained on 0.01, offered 0.02" in words

    def test_a_library_version_alone_does_not_matter(self, predictor: Predictor, partial: Dataset) -> None:
        other = {**partial.extraction, "face": {**partial.extraction["face"], "version": "0.10.32"}}
        predictor.check_features(partial.schema, other)

    @pytest.mark.parametrize("column", ["emotion_fear", "expression_00"])
    def test_another_expression_encoder_matters_to_what_it_measures(self, column: str) -> None:
        sealed, other = ({"versions": {EXPRESSION_ENCODER: name}} for name in ("ab12", "cd34"))
        schema, plain = {"face": (column, "jawOpen")}, {"face": ("jawOpen",)}
        for trained, offered in ((sealed, other), (sealed, {"versions": {}}), ({"versions": {}}, sealed)):
            with pytest.raises(FeatureMismatch, match=EXPRESSION_ENCODER):
                check_features(schema, trained, schema, offered)
            check_features(plain, trained, plain, offered)
            check_features({**schema, "voice": ("a",)}, trained, {"voice": ("a",)}, offered)
        for same in (sealed, {}, None):
            check_features(schema, sealed, schema, same)
        check_features(schema, {}, schema, sealed)

    def test_no_common_modality_is_refused(self, predictor: Predictor) -> None:
        with pytest.raises(FeatureMismatch, match="trained on text, face, voice, offered gait"):
            predictor.check_features({"gait": ("x",)})

    def test_evaluation_checks_first(self, predictor: Predictor, partial: Dataset) -> None:
        other = Dataset(partial.manifest, {}, {}, "")
        with pytest.raises(FeatureMismatch):
            evaluate(predictor, other, None)


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, emopipe.models; sys.exit(any(m in sys.modules for m in ('torch', 'sklearn', 'pyarrow', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_predictions_need_nothing_of_what_training_needs() -> None:
    """scikit-learn and what it brings take 90 MiB and a second of every process."""
    code = "import sys, emopipe.models.predictor; sys.exit(any(m in sys.modules for m in ('sklearn', 'scipy.stats')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("value", [5, 5.0])
def test_a_whole_number_is_the_same_setting_as_the_number_with_decimals(value: float) -> None:
    sealed = ExtractionConfig.from_dict({"face": {"rate": 5.0}}).as_dict()
    offered = {**sealed, "face": {**sealed["face"], "rate": value}}
    check_features({"face": ("AU01",)}, sealed, {"face": ("AU01",)}, offered)
    assert json.dumps(extraction_overrides({"fps": value})) == json.dumps({"face": {"rate": 5.0}})


def test_what_cannot_be_written_is_told_with_a_code(tmp_path: Path, predictor: Predictor) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        save(tmp_path / "file" / "model", predictor, "")


def test_what_a_killed_process_left_is_removed_when_the_folder_is_written_again(
    tmp_path: Path, predictor: Predictor
) -> None:
    for name in (".model.partial-999999999", ".other.partial-999999999"):
        (tmp_path / name).mkdir()
    save(tmp_path / "model", predictor, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.partial-999999999", "model"]

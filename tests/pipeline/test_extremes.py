"""The least and the greatest value of every extraction setting: a run with it may find nothing, but does not break."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emopipe.errors import BackendUnusable
from emopipe.models import checkpoint
from emopipe.models.predictor import Predictor, Spec
from emopipe.models.registry import configure
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.execution.batch import find_inputs, run_files
from emopipe.pipeline.execution.engine import Here
from emopipe.pipeline.execution.jobs import prediction_job
from emopipe.pipeline.records import FileResult
from emopipe.pipeline.store.store import Store
from tests.conftest import blank, tone, write_media
from tests.pipeline.stand_ins import StandIns
from tests.test_settings import CONFIGS, Number, numbers
from tests.tiny_bert import SMALL, write_bert

SETTINGS = [
    number
    for what, config in CONFIGS.items()
    if not what.startswith(("[train]", "model "))
    for number in numbers(what, config)
]


class Talking(StandIns):
    """Stand-ins that also write down words and read them, by Whisper and BERT of random weights."""

    @cached_property
    def asr(self) -> Any:
        import torch
        from whisper.model import ModelDimensions, Whisper

        from emopipe.extractors.speech.whisper import Decoding, WhisperRecogniser

        torch.manual_seed(0)
        sizes = {"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 8, "n_audio_head": 1, "n_audio_layer": 1}
        texts = {"n_vocab": 51865, "n_text_ctx": 16, "n_text_state": 8, "n_text_head": 1, "n_text_layer": 2}
        model = Whisper(ModelDimensions(**sizes, **texts)).eval()
        for parameter in model.parameters():  # some are whatever was in memory
            torch.nn.init.normal_(parameter, std=0.3)
        return WhisperRecogniser(model, Decoding.of(asdict(self.config.speech)))

    @property
    def languages(self) -> tuple[str, ...]:
        return ()


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of few places, whose tokenizer does not tell how many."""
    folder = write_bert(tmp_path_factory.mktemp("bert") / "short", **{**SMALL, "max_position_embeddings": 16})
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A low tone and a high one by turns, and a clip in which nobody makes a sound."""
    folder = tmp_path_factory.mktemp("clips")
    sound = [tone(2.0, 200.0), tone(0.7, level=0.0), tone(2.0, 900.0)]
    write_media(folder / "two.mp4", blank(4.7, grey=100, size=(48, 64)), np.concatenate(sound))
    write_media(folder / "silent.mp4", blank(2.0, grey=90, size=(48, 64)), np.zeros(32_000, np.float32))
    return folder


def write_checkpoint(folder: Path, tables: dict[str, Any]) -> Path:
    """A tiny untrained checkpoint of all modalities."""
    config = ExtractionConfig.from_dict(tables)
    with Talking(config, device="cpu", offline=True) as backends:
        names = {modality: tuple(columns) for modality, columns in backends.feature_names().items()}
    options = asdict(configure("emoe", {"width": 8, "layers": 1, "heads": 1, "router_width": 4}))
    spec = Spec("emoe", options, "classification", "label", ("anger", "happiness"), names, config.as_dict())
    checkpoint.save(folder, Predictor(spec, spec.build()), "A checkpoint of tests.")
    return folder


def run(clips: Path, tables: dict[str, Any], root: Path) -> dict[str, FileResult]:
    """What became of each clip with these settings."""
    model = write_checkpoint(root / "model", tables)
    with Store(root / "store") as store, closing(Here()) as engine:
        job = prediction_job(str(model), store, device="cpu", offline=True, backends=Talking)
        return {one.media.stem: one for one in run_files(find_inputs([clips]), job, root / "out", engine)}


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Tables with the settings of several; those of the last one count."""
    names = {name for tables in layers for name in tables}
    return {name: {key: value for one in layers for key, value in one.get(name, {}).items()} for name in names}


#: One person whose words are written down, and two of whom no word is sure enough.
WAYS: dict[str, dict[str, Any]] = {
    "words": {"speech": {"language": "en", "least_confidence": 0.0, "temperatures": [0.0]}, "people": {"count": 1}},
    "turns": {"speech": {"language": "en", "least_confidence": 1.0, "temperatures": [0.0]}, "people": {"count": 2}},
}


def test_the_ways_are_what_they_are_called(clips: Path, bert: Path, tmp_path: Path) -> None:
    results = {way: run(clips, merged({"text": {"encoder": str(bert)}}, WAYS[way]), tmp_path / way) for way in WAYS}
    words, turns = (results[way]["two"].utterances for way in WAYS)
    assert not any({"text", "voice"} & one.absent.keys() for one in words) and all(one.text for one in words)
    assert [one.speaker for one in turns] == ["S1", "S2"] and not any(one.text for one in turns)
    assert {name for one in results["words"]["silent"].utterances for name in one.absent} == {"text", "voice"}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda one: f"{one.what} {one.field}")
def test_extremes_break_nothing(setting: Number, way: str, clips: Path, bert: Path, tmp_path: Path) -> None:
    table = setting.what.strip("[]")
    estimated = {"people": {"count": 0}} if setting.field == "most" else {}
    for index, extreme in enumerate(setting.extremes()):
        tried = {table: {setting.field: setting.value(extreme)}}
        tables = merged({"text": {"encoder": str(bert)}}, WAYS[way], estimated, tried)
        if setting.field == "layers":
            with pytest.raises(BackendUnusable, match="the text encoder has the layers 0 to 3"):
                run(clips, tables, tmp_path / str(index))
            continue
        for result in run(clips, tables, tmp_path / str(index)).values():
            if setting.field == "tracks" and extreme > 1:
                assert [reason.code for reason in result.reasons] == ["EMO-105"]
                continue
            assert result.state != "failed", (extreme, result.reasons)

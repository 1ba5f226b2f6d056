"""A pretrained encoder that reads words: tuned or not, never exchanged, and saved only where it changed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, LlamaForCausalLM, PreTrainedTokenizerFast

from emopipe.errors import BackboneError, DatasetError
from emopipe.models import checkpoint
from emopipe.models.data.dataset import Dataset
from emopipe.models.data.reading import read
from emopipe.models.evaluation.evaluate import evaluate
from emopipe.models.networks.backbone import digest
from emopipe.models.training.config import TrainConfig
from emopipe.models.training.loop import train
from tests.models.conftest import CLASSES, learnable
from tests.models.tiny_backbone import write_backbone


def write_bert(folder: Path, seed: int = 0) -> Path:
    """A random two-layer BERT of width 16 that knows the words of :func:`learnable`."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", *CLASSES]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    sizes = BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                       intermediate_size=32, max_position_embeddings=32, initializer_range=0.2)  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(sizes).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Rows whose words name the class, some without words; the features of their text tell nothing."""
    return read(learnable(tmp_path_factory.mktemp("spoken"), words=True, missing=0.3, noise=40.0))


def options(backbone: Path, **more: Any) -> dict[str, Any]:
    small = {
        "width": 16,
        "layers": 1,
        "heads": 2,
        "router_width": 8,
        "readout": "mean",
        "output_dropout": 0.0,
        "input_dropout": 0.0,
    }
    return {**small, "backbone": "tiny", "backbone_path": str(backbone), **more}


@pytest.mark.parametrize("name", ["emoe", "late-fusion", "unimodal"])
@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
def test_words_are_read_and_the_features_of_their_text_are_not(
    name: str, tuning: str, backbone: Path, spoken: Dataset
) -> None:
    chosen = {"modality": "text"} if name == "unimodal" else {}
    config = TrainConfig(name, options(backbone, backbone_tuning=tuning, **chosen), epochs=25, lr=4e-3, batch_size=16)
    predictor = train(spoken, config).predictor
    assert evaluate(predictor, spoken, "test", ["text"]).metrics["uar"] > 0.9
    rows = np.flatnonzero(spoken.present[:, 0])[:8]
    batch = spoken.batch(rows)
    spoiled = replace(batch, features={**batch.features, "text": 9 * torch.ones_like(batch.features["text"])})
    with torch.no_grad():
        assert torch.equal(predictor.module(batch).logits, predictor.module(spoiled).logits)


@pytest.mark.parametrize("tuning", ["frozen", "lora"])
def test_a_causal_language_model_without_padding_reads_words_too(tuning: str, spoken: Dataset, tmp_path: Path) -> None:
    folder = write_backbone(tmp_path / "llama", known=["the", *CLASSES])
    LlamaForCausalLM.from_pretrained(folder).bfloat16().save_pretrained(folder)
    predictor = train(
        spoken, TrainConfig("emoe", options(folder, backbone_tuning=tuning), epochs=25, lr=4e-3, batch_size=16)
    ).predictor
    assert evaluate(predictor, spoken, "test", ["text"]).metrics["uar"] > 0.9
    assert all(parameter.dtype == torch.float32 for parameter in predictor.module.parameters())
    batch = spoken.batch(np.flatnonzero(spoken.present[:, 0])[:2])
    with torch.no_grad():
        one = predictor.module(replace(batch, words=("the", ""))).logits[0]
        other = predictor.module(replace(batch, words=("the", "the anger the anger"))).logits[0]
    assert torch.allclose(one, other, atol=1e-5)


def test_words_of_an_absent_text_change_nothing(backbone: Path, spoken: Dataset) -> None:
    model = train(spoken, TrainConfig("emoe", options(backbone), epochs=1)).predictor.module
    batch = spoken.batch(np.flatnonzero(~spoken.present[:, 0] & spoken.present[:, 1:].any(1))[:6])
    with torch.no_grad():
        assert torch.equal(model(batch).logits, model(replace(batch, words=("the anger",) * 6)).logits)


def test_padding_does_not_matter(backbone: Path, spoken: Dataset) -> None:
    model = train(spoken, TrainConfig("emoe", options(backbone), epochs=1)).predictor.module
    rows = np.flatnonzero(spoken.present.all(axis=1))[:4]
    batch = spoken.batch(rows)
    longer = replace(batch, words=(batch.words[0], *["the anger the anger the anger"] * 3))
    with torch.no_grad():
        assert torch.allclose(model(batch).logits[0], model(longer).logits[0], atol=1e-5)


def test_a_checkpoint_keeps_changes_and_names_the_backbone(backbone: Path, spoken: Dataset, tmp_path: Path) -> None:
    trained = train(spoken, TrainConfig("emoe", options(backbone), epochs=2, lr=1e-2))
    checkpoint.save(tmp_path / "model", trained.predictor, "card")
    told = checkpoint.read_spec(tmp_path / "model").options
    assert (told["backbone"], told["backbone_path"], told["backbone_sha256"]) == ("tiny", "", digest(backbone))
    names = [name for name in load_file(tmp_path / "model" / "model.safetensors") if ".words." in name]
    assert names and all(".lora_" in name for name in names)
    again = checkpoint.load(tmp_path / "model", options={"backbone_path": str(backbone)})
    assert np.array_equal(again.scores(spoken).logits, trained.predictor.scores(spoken).logits)
    with pytest.raises(BackboneError) as error:
        checkpoint.load(tmp_path / "model", options={"backbone_path": str(write_bert(tmp_path / "other", seed=1))})
    assert digest(backbone) in str(error.value)


def test_a_fully_tuned_encoder_is_kept_whole(backbone: Path, spoken: Dataset, tmp_path: Path) -> None:
    trained = train(spoken, TrainConfig("emoe", options(backbone, backbone_tuning="full"), epochs=1, lr=1e-2))
    checkpoint.save(tmp_path / "model", trained.predictor, "card")
    again = checkpoint.load(tmp_path / "model", options={"backbone_path": str(backbone)})
    assert np.array_equal(again.scores(spoken).logits, trained.predictor.scores(spoken).logits)


def test_without_words_or_backbone_it_says_so(backbone: Path, shared: Dataset) -> None:
    with pytest.raises(DatasetError, match="no words"):
        train(shared, TrainConfig("emoe", options(backbone), epochs=1))
    with pytest.raises(BackboneError, match="tiny is not here"):
        train(shared, TrainConfig("emoe", {**options(backbone), "backbone_path": ""}, epochs=1))


def test_a_backbone_without_a_pooler_loads_in_silence_and_one_that_lacks_weights_does_not(
    backbone: Path, spoken: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(backbone, tmp_path / "bert"))
    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.startswith("pooler.")}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    capfd.readouterr()
    train(spoken, TrainConfig("emoe", options(folder), epochs=1))
    assert capfd.readouterr() == ("", "")
    save_file({k: v for k, v in weights.items() if "layer.1" not in k}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackboneError, match=r"lacks \d+ weights"):
        train(spoken, TrainConfig("emoe", options(folder), epochs=1))

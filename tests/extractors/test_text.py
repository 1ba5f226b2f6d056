"""Token vectors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emopipe.extractors.text.tokenizer import read_tokenizer
from emopipe.extractors.text.transformer import ByLanguage, TextEncoder, create
from tests.tiny_bert import SMALL, write_bert


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert") / "small", **SMALL)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another encoder, wider."""
    return write_bert(tmp_path_factory.mktemp("bert") / "other", seed=1, **{**SMALL, "hidden_size": 24})


def test_a_text_gives_the_same_vectors_alone_and_in_a_batch(weight: Callable[[str], Path]) -> None:
    encoder = TextEncoder(weight("minilm-l6"), max_tokens=16)
    short, long = "I am happy.", "word " * 100
    alone, batch = encoder.encode([short]), encoder.encode([long, short])
    assert alone[0].shape == (6, encoder.width) and encoder.width == 384
    assert batch[0].shape == (16, 384)
    assert np.allclose(alone[0], batch[1], atol=1e-4)
    assert len(encoder.feature_names()) == 384


def test_meaning_is_nearer_than_wording(weight: Callable[[str], Path]) -> None:
    encoder = TextEncoder(weight("minilm-l6"), pooling="mean")
    vectors = [rows[0] for rows in encoder.encode(["I am so glad!", "What a joy!", "The bus is late."])]
    glad, joy, bus = (vector / np.linalg.norm(vector) for vector in vectors)
    assert glad @ joy > glad @ bus


@pytest.mark.slow
def test_the_multilingual_encoder_knows_one_meaning_in_many_languages(weight: Callable[[str], Path]) -> None:
    encoder = TextEncoder(weight("multilingual-e5-small"), pooling="mean")
    glad, bus = (
        ("I am so glad today!", "我今天非常高兴！", "Ich bin heute so froh!"),
        ("The bus is late.", "公交车晚点了。"),
    )
    vectors = np.stack([rows[0] / np.linalg.norm(rows[0]) for rows in encoder.encode([*glad, *bus])])
    likeness = vectors @ vectors.T
    assert encoder.width == 384
    assert likeness[:3, :3].min() > likeness[:3, 3:].max()
    assert likeness[3, 4] > likeness[3, :3].max()


def test_the_vocabulary_and_the_size_are_those_of_the_folder(bert: Path) -> None:
    encoder = TextEncoder(bert)
    assert encoder.width == 16 and encoder.feature_names()[-1] == "token_015"
    words, pieces, chinese = encoder.encode(["I am HAPPY", "happier", "我很高兴。"])
    assert (len(words), len(pieces), len(chinese)) == (5, 8, 7)


@pytest.mark.parametrize("layers", [(-1,), (0,), (1, 2), (-2, -1)])
def test_layers_are_averaged(bert: Path, layers: tuple[int, ...]) -> None:
    from transformers import AutoModel, AutoTokenizer

    batch = AutoTokenizer.from_pretrained(bert)(["we are so sad"], return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(bert, dtype=torch.float32)(**batch, output_hidden_states=True).hidden_states
    expected = torch.stack([states[layer][0] for layer in layers]).mean(0).numpy()
    (vectors,) = TextEncoder(bert, layers=layers).encode(["we are so sad"])
    assert vectors.dtype == np.float32 and np.allclose(vectors, expected, atol=1e-5)


def test_padding_changes_nothing_and_vectors_are_those_of_transformers(weight: Callable[[str], Path]) -> None:
    from transformers import AutoModel, AutoTokenizer

    texts = ["We are so sad.", "no", "I am so happy today, and so is she. " * 3]
    folder = weight("minilm-l6")
    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folder)(**batch).last_hidden_state
    for vectors, theirs, mask in zip(TextEncoder(folder).encode(texts), expected, batch["attention_mask"], strict=True):
        assert np.abs(vectors - theirs[mask.bool()].numpy()).max() < 1e-6


def test_a_bert_is_read_without_what_transformers_brings(bert: Path) -> None:
    """Torch's compiler takes 200 MiB and two seconds of every process."""
    read_without(bert, "torch._dynamo", "torchvision", "sklearn")


def test_a_tokenizers_file_is_read_without_what_the_hub_brings(weight: Callable[[str], Path]) -> None:
    """It takes 35 MiB and a second of every process."""
    read_without(weight("minilm-l6"), "transformers", "huggingface_hub")


def read_without(folder: Path, *modules: str) -> None:
    """Encode a text in a new process, which must not import these modules."""
    code = (
        "import sys; from emopipe.extractors.text.transformer import TextEncoder\n"
        "assert TextEncoder(sys.argv[1]).encode(['we are so sad'])\n"
        "assert not set(sys.argv[2:]) & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(folder), *modules], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm-l6", "multilingual-e5-small"])
@given(texts=st.lists(st.text(max_size=60), min_size=1, max_size=3), most=st.integers(3, 40))
@example(texts=["Café — naïve", "我很高兴。 [MASK] </s>", "É\u0301\u00ad\ufffd"], most=40)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
def test_a_tokenizers_file_gives_the_tokens_of_transformers(
    name: str, texts: list[str], most: int, weight: Callable[[str], Path]
) -> None:
    own, theirs = _of_file(weight(name)), _of_transformers(weight(name))
    assert own is not None and own.longest == theirs.model_max_length
    expected = theirs(texts, padding=True, truncation=True, max_length=most, return_tensors="pt")
    for part, made in own.batch(texts, most).items():
        assert torch.equal(made, expected[part])


_of_file = cache(read_tokenizer)


@cache
def _of_transformers(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("told", "of_file"),
    [
        ({}, True),
        ({"strip_accents": True}, False),
        ({"tokenizer_class": "PreTrainedTokenizerFast", "strip_accents": True}, True),
        ({"tokenizer_class": "CanineTokenizer"}, False),
        ({"tokenizer_class": None}, False),
    ],
)
def test_the_file_is_read_where_it_alone_tells(
    told: dict[str, Any], of_file: bool, weight: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(weight("minilm-l6"), tmp_path / "tokenizer"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, **told}))
    assert (read_tokenizer(folder) is not None) is of_file


def test_a_broken_tokenizer_is_told(weight: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(weight("minilm-l6"), tmp_path / "broken"))
    stored = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**stored, "model": {"type": "Unheard"}}))
    with pytest.raises(ValueError, match="not a tokenizer"):
        TextEncoder(folder)


@pytest.mark.parametrize("told", [{"hidden_act": "relu"}, {"is_decoder": True}, {"num_hidden_layers": 2}])
def test_other_networks_are_left_to_transformers(told: dict[str, Any], bert: Path, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = Path(shutil.copytree(bert, tmp_path / "other"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **told}))
    batch = AutoTokenizer.from_pretrained(folder)(["we are so sad"], return_tensors="pt")
    with torch.no_grad():
        (expected,) = AutoModel.from_pretrained(folder, dtype=torch.float32)(**batch).last_hidden_state
    (vectors,) = TextEncoder(folder).encode(["we are so sad"])
    assert np.allclose(vectors, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(("pooling", "name"), [("mean", "mean_000"), ("first", "first_000")])
def test_pooling_makes_one_vector_and_says_so_in_the_names(bert: Path, pooling: str, name: str) -> None:
    texts = ["I am so happy", "sad"]
    tokens, pooled = TextEncoder(bert).encode(texts), TextEncoder(bert, pooling=pooling)
    assert pooled.feature_names()[0] == name
    for whole, one in zip(tokens, pooled.encode(texts), strict=True):
        assert one.shape == (1, 16)
        assert np.allclose(one[0], whole.mean(0) if pooling == "mean" else whole[0], atol=1e-5)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"layers": (4,)}, r"layers 0 to 3 \(-1 is the last\), not \[4\]"),
        ({"layers": ()}, "layers 0 to 3"),
        ({"pooling": "max"}, "unknown pooling 'max'"),
    ],
)
def test_what_the_encoder_does_not_have_is_told(bert: Path, told: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TextEncoder(bert, **told)


def test_texts_are_cut_where_the_encoder_ends(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "short", **SMALL)
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 8}')
    (vectors,) = TextEncoder(folder, max_tokens=64).encode(["happy " * 100])
    assert len(vectors) == 8


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_texts_are_cut_where_the_encoders_places_end_if_the_tokenizer_does_not_tell(
    family: str, tmp_path: Path
) -> None:
    from transformers import RobertaConfig, RobertaModel

    sizes = {**SMALL, "max_position_embeddings": 20}
    folder = write_bert(tmp_path / "short", **sizes)
    if family == "roberta":  # counts from behind the padding's place
        RobertaModel(RobertaConfig(vocab_size=200, pad_token_id=1, **sizes)).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (vectors,) = TextEncoder(folder, max_tokens=1_000_000).encode(["happy " * 1000])
    assert len(vectors) == (20 if family == "bert" else 18)


def table(encoder: Path, **told: Any) -> dict[str, Any]:
    defaults = {"max_tokens": 64, "layers": [-1], "pooling": "tokens", "multilingual": "", "languages": []}
    return {"encoder": str(encoder), **defaults, **told}


def test_the_language_says_who_reads_and_the_columns_who_has_read(bert: Path, other: Path) -> None:
    both = create(table(bert, multilingual=str(other), languages=["en"]), Path, "cpu")
    assert isinstance(both, ByLanguage)
    names = both.feature_names()
    assert len(names) == 16 + 24 and names[15:17] == ["token_015", "multilingual_token_000"]
    alone, wide = TextEncoder(bert), TextEncoder(other)
    for language, encoder, filled in (("en", alone, slice(16)), (None, alone, slice(16)), ("zh", wide, slice(16, 40))):
        (vectors,) = both.encode(["I am so happy"], language)
        (expected,) = encoder.encode(["I am so happy"])
        assert np.array_equal(vectors[:, filled], expected)
        assert np.isnan(np.delete(vectors, np.r_[filled], axis=1)).all()


def test_a_second_encoder_needs_to_know_its_languages(bert: Path, other: Path) -> None:
    with pytest.raises(ValueError, match=r"tell text\.languages"):
        create(table(bert, multilingual=str(other)), Path, "cpu")


@pytest.mark.parametrize("own", [True, False])
def test_weights_in_half_precision_give_the_vectors_of_single_precision(
    own: bool, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    wide = shutil.copytree(bert, tmp_path / "wide")
    widened = {name: value.float() for name, value in load_file(bert / "model.safetensors").items()}
    save_file(widened, wide / "model.safetensors", {"format": "pt"})
    config = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps({**config, "dtype": "float32"}))
    texts = ["i am so happy today", "we are sad."]
    if not own:
        monkeypatch.setattr("emopipe.extractors.text.bert.read_bert", lambda *_: None)
    narrow = TextEncoder(bert)
    network: Any = narrow._network
    words = network.words if own else network._model.get_input_embeddings().weight
    assert words.dtype == torch.float16
    for one, other in zip(narrow.encode(texts), TextEncoder(wide).encode(texts), strict=True):
        assert one.dtype == np.float32 and np.array_equal(one, other)


def test_a_file_that_lacks_weights_is_refused_and_one_without_a_pooler_is_not(bert: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(bert / "model.safetensors")
    for place, kept in (("pooler", "layer.2."), ("layer", "pooler.")):
        folder = shutil.copytree(bert, tmp_path / place)
        rest = {name: value for name, value in weights.items() if kept in name or place not in name}
        save_file(rest, folder / "model.safetensors", {"format": "pt"})
    assert TextEncoder(tmp_path / "pooler").width == 16
    with pytest.raises(ValueError, match="lacks 48 weights"):
        TextEncoder(tmp_path / "layer")

"""`emopipe methods`: what is told of how recordings were analysed is what the store holds of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import emopipe
from emopipe.constants import EXPRESSION_ENCODER
from emopipe.errors import InputNotFound, OutputError, reason
from emopipe.models.sealed import read_sealed
from emopipe.pipeline import weights
from emopipe.pipeline.export.methods import Description, describe, references, write
from emopipe.pipeline.export.recording import Recording
from emopipe.pipeline.records import MediaInfo
from emopipe.pipeline.store.store import Store
from tests.pipeline.export.test_export import TWO_PEOPLE

DEFAULT = read_sealed("emopipe-default").id


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as store:
        yield store


def measured(store: Store, key: str, **facts: object) -> str:
    store.put(key, {}, {"stage": "face", "content": "", "parameters": {}, "weights": {}, "libraries": {}, **facts})
    return key


def of_faces(store: Store, rate: float = 5.0, mediapipe: str = "0.10.31") -> str:
    parameters = {
        "face.backend": "mediapipe",
        "face.weights": "face-landmarker",
        "face.rate": rate,
        "face.detector": "",
    }
    libraries = {"mediapipe": mediapipe, EXPRESSION_ENCODER: "0123456789ab"}
    key = f"face{rate}{mediapipe}"
    return measured(store, key, parameters=parameters, weights={"face-landmarker": "f" * 64}, libraries=libraries)


def section(description: Description, folder: Path) -> str:
    return write(description, folder)[0].read_text("utf-8")


def test_settings_weights_and_versions_are_those_of_the_store(store: Store, tmp_path: Path) -> None:
    recording = Recording(replace(TWO_PEOPLE, keys={"face": of_faces(store)}, checkpoint=DEFAULT), "two", store)
    text = section(describe([recording], failed=2), tmp_path / "out")
    assert "1 recording (" in text and "2 more could not be" in text
    assert "Faces were measured 5.0 times a second by MediaPipe Face Landmarker" in text
    assert f"| {weights.entry('face-landmarker').title} (`face-landmarker`) | Apache-2.0 | `{'f' * 64}` |" in text
    assert "| mediapipe | 0.10.31 |" in text and "face.detector" not in text
    assert f"emopipe-default (id {DEFAULT}; model EMOE [@fang2025emoe])" in text


def test_the_expression_encoder_is_told_with_what_it_was_trained_on(store: Store, tmp_path: Path) -> None:
    features = measured(store, "subject", stage="subject", parameters={"face.features": ["emotions", "expression"]})
    keys = {"face": of_faces(store), "subject": features}
    text = section(describe([Recording(replace(TWO_PEOPLE, keys=keys), "two", store)]), tmp_path)
    assert "expression encoder [@li2017rafdb; @barsoum2016ferplus; @tan2019efficientnet]" in text
    assert f"| {EXPRESSION_ENCODER} | 0123456789ab |" in text


def test_people_who_were_enrolled_are_not_named(store: Store, tmp_path: Path) -> None:
    parameters = {"people.enrol": {"Anna": "a" * 64}, "people.subject": "Anna"}
    key = measured(store, "people", stage="people", parameters=parameters)
    text = section(describe([Recording(replace(TWO_PEOPLE, keys={"people": key}), "two", store)]), tmp_path)
    assert "Anna" not in text and "a" * 64 in text and "an enrolled person" in text


def test_recordings_that_were_not_measured_alike_are_told_apart(store: Store, tmp_path: Path) -> None:
    keys = [of_faces(store), of_faces(store, 10.0, "0.10.40")]
    recordings = [Recording(replace(TWO_PEOPLE, keys={"face": key}), key, store) for key in keys]
    text = section(describe(recordings), tmp_path)
    assert "5.0 and 10.0 times a second" in text and "| mediapipe | 0.10.31 and 0.10.40 |" in text


def test_utterances_and_limits_are_counted(tmp_path: Path) -> None:
    spoken = TWO_PEOPLE.utterances[0]
    utterances = [replace(spoken, absent={"face": "no_face"}), replace(spoken, absent={}, abstained=True)]
    result = replace(
        TWO_PEOPLE,
        utterances=utterances,
        reasons=[reason("no_video_stream", "the file has no video stream")],
        info=MediaInfo(language="de"),
    )
    text = section(describe([Recording(result, "one", None)]), tmp_path)
    assert "Of 2 utterances" in text and "; face was absent in 1." in text and "of 1 the model was too unsure" in text
    assert re.search(r"In 1 recording: .* \(`no_video_stream`\)", text)
    assert "no longer holds how everything was measured" in text


def test_a_checkpoint_of_ones_own_asks_for_its_card(tmp_path: Path) -> None:
    text = section(describe([Recording(replace(TWO_PEOPLE, checkpoint="0123456789ab"), "one", None)]), tmp_path)
    assert "trained for this study (id 0123456789ab)" in text and "state what it was trained on" in text


def test_every_citation_has_its_reference(store: Store, tmp_path: Path) -> None:
    recording = Recording(replace(TWO_PEOPLE, keys={"face": of_faces(store)}, checkpoint=DEFAULT), "two", store)
    files = write(describe([recording]), tmp_path)
    text, bibtex = (path.read_text("utf-8") for path in files)
    assert set(re.findall(r"@(\w+\d{4}\w+)", text)) <= set(re.findall(r"^@\w+\{(\w+),$", bibtex, re.M))


def test_references_are_whole_and_of_things_that_there_are() -> None:
    libraries = {"py-feat", "openai-whisper", "faster-whisper", "librosa", "transformers", "torch", "silero-vad"}
    libraries |= {EXPRESSION_ENCODER}
    for key, entry in references().items():
        assert entry["bibtex"].strip().startswith("@") and f"{{{key}," in entry["bibtex"]
        assert entry["bibtex"].count("{") == entry["bibtex"].count("}")
        for name in entry["of"]:
            assert name in libraries | {"face", "voice", "emoe", "emoe-paper"} or weights.known(name) is not None, name


@given(prompt=st.text(max_size=40))
def test_no_setting_breaks_the_table(prompt: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("methods")
    with Store(folder / "store") as store:
        key = measured(store, "words", stage="words", parameters={"speech.prompt": prompt})
        text = section(describe([Recording(replace(TWO_PEOPLE, keys={"words": key}), "one", store)]), folder)
    rows = [line for line in text.splitlines() if "speech.prompt" in line]
    assert len(rows) == (1 if prompt else 0)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)


def test_files_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write(describe([]), tmp_path / "file")


def test_a_run_is_described_with_no_recordings_at_all(tmp_path: Path) -> None:
    assert "0 recordings" in section(describe([]), tmp_path)


def test_results_of_no_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputNotFound):
        emopipe.methods(tmp_path)

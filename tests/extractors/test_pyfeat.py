"""py-feat: its words, units and signs turned into ours; its detectors on test weights, and on the real ones if here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emopipe.errors import EmopipeError
from emopipe.extractors.face import mediapipe, pyfeat
from emopipe.extractors.face.mediapipe import FaceLandmarker
from emopipe.extractors.face.pyfeat import ANCHORS, MEASURED, SOURCES, PyFeat
from emopipe.extractors.face.table import (
    ACTION_UNITS,
    AFFECT,
    BLENDSHAPES,
    EMOTIONS,
    EXPRESSION,
    FEATURE_GROUPS,
    GAZE,
    MESH_COMPONENTS,
    POSE,
    SCHEMA,
    feature_columns,
)
from emopipe.pipeline import weights
from emopipe.pipeline.media.decoding import Frame, Media
from tests.conftest import SAMPLES
from tests.pyfeat_weights import NOTE, folders


class Detector:
    """Speaks as py-feat's detectors do: one face per bright picture, whose columns say in their order 1, 2, 3, ..."""

    def __init__(self, name: str) -> None:
        self.columns = [column for column, _ in SOURCES[name].values()] + ANCHORS
        self.batches: list[int] = []

    def detect_faces(self, images: torch.Tensor, face_detection_threshold: float) -> list[dict[str, Any]]:
        self.batches.append(len(images))
        there, absent = torch.tensor([[10.0, 20.0, 50.0, 100.0]]), torch.full((1, 4), torch.nan)
        return [{"boxes": there if image.max() > 0 else absent} for image in images]

    def forward(self, faces: list[dict[str, Any]], batch: dict[str, Any]) -> pd.DataFrame:
        assert len(faces) == len(batch["Image"]) == len(batch["Scale"]) == len(batch["Padding"]["Left"])
        return pd.DataFrame([range(1, len(self.columns) + 1)] * len(faces), columns=self.columns)


def spoken(monkeypatch: pytest.MonkeyPatch, name: str, batch: int = 2) -> tuple[PyFeat, Detector]:
    detector = Detector(name)
    monkeypatch.setattr(pyfeat, "_load", lambda *arguments: detector)
    return PyFeat({}, name, batch=batch), detector


def pictures(*greys: int, size: tuple[int, int] = (200, 400)) -> list[Frame]:
    return [Frame(index / 2, np.full((*size, 3), grey, np.uint8)) for index, grey in enumerate(greys)]


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_names_signs_and_units_are_the_tables(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, detector = spoken(monkeypatch, name)
    table = backend.track(pictures(9, 0, 9))
    assert table.schema.equals(SCHEMA)
    assert table.schema.metadata[b"backend"] == b"pyfeat"
    assert name in table.schema.metadata[b"version"].decode() and table.schema.metadata[b"frames"] == b"3"
    row = table.to_pylist()[0]
    assert table["time"].to_pylist() == [0.0, 1.0] and table["track"].to_pylist() == [0, 0]
    assert [row[side] for side in ("x0", "y0", "x1", "y1")] == pytest.approx([0.025, 0.1, 0.125, 0.5])

    said = {column: index + 1.0 for index, column in enumerate(detector.columns)}
    assert row["AU12"] == said["AU12"]
    assert row["emotion_happiness"] == said["happiness" if name == "v1" else "Happy"]
    assert row["emotion_neutral"] == said["neutral" if name == "v1" else "Neutral"]
    # py-feat's pitch and yaw grow upwards and to the subject's right, ours downwards and to the left.
    degrees = {"pitch": -np.degrees(said["Pitch"]), "yaw": -np.degrees(said["Yaw"]), "roll": np.degrees(said["Roll"])}
    degrees |= {column: -np.degrees(said[column]) for column in GAZE}
    assert {column: row[column] for column in degrees} == pytest.approx(degrees)
    if name == "v2":
        assert row["valence"] == said["valence"] and row["jawOpen"] == said["jawOpen"]


def test_faces_keep_their_numbers_through_cuts_by_their_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two people whose faces lie in the same place, told apart by dlib's landmarks and the picture."""
    backend, detector = spoken(monkeypatch, "v1")
    places = [(14.0, 40.0), (46.0, 40.0), (30.0, 60.0), (30.0, 95.0)]
    noise = np.random.default_rng(0)
    people = [noise.integers(0, 256, (200, 400, 3), np.uint8), noise.integers(0, 256, (200, 400, 3), np.uint8)]

    def forward(faces: list[dict[str, Any]], batch: dict[str, Any]) -> pd.DataFrame:
        row = dict.fromkeys(detector.columns, 0.1) | dict(zip(ANCHORS, np.ravel(places), strict=True))
        return pd.DataFrame([row] * len(faces))

    monkeypatch.setattr(detector, "forward", forward)
    shown = [0, 0, 1, 1, 0, 1]
    table = backend.track([Frame(index / 2, people[who]) for index, who in enumerate(shown)])
    assert table["track"].to_pylist() == shown


def test_what_a_detector_does_not_measure_is_null_and_what_it_measures_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, lacking in (
        ("v1", {*AFFECT, *BLENDSHAPES, *MESH_COMPONENTS, *EXPRESSION}),
        ("v2", {*MESH_COMPONENTS, *EXPRESSION}),
    ):
        table = spoken(monkeypatch, name)[0].track(pictures(9, 9))
        assert {column for column in table.column_names if table[column].null_count} == lacking
        assert set(feature_columns(FEATURE_GROUPS, MEASURED[name])).isdisjoint(lacking)
        assert {*ACTION_UNITS, *EMOTIONS, *POSE, *GAZE} <= MEASURED[name]


def test_frames_go_in_batches_of_one_size_and_no_more_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, detector = spoken(monkeypatch, "v2", batch=4)
    drawn: list[int] = []

    def frames() -> Iterator[Frame]:
        sizes = [(60, 80)] * 9 + [(80, 60)] * 2
        for index, size in enumerate(sizes):
            drawn.append(index)
            assert len(drawn) - sum(detector.batches) <= 5
            yield Frame(index / 5, np.full((*size, 3), 9, np.uint8))

    assert backend.track(frames()).num_rows == 11
    assert detector.batches == [4, 4, 1, 2]


@given(st.lists(st.sampled_from([(4, 6), (6, 4), (5, 5)]), max_size=20), st.integers(1, 5))
def test_batches_keep_every_frame_in_order(sizes: list[tuple[int, int]], most: int) -> None:
    frames = [Frame(float(index), np.zeros((*size, 3), np.uint8)) for index, size in enumerate(sizes)]
    batches = list(pyfeat._batches(frames, most))
    assert [frame for batch in batches for frame in batch] == frames
    assert all(len(batch) <= most and len({frame.rgb.shape for frame in batch}) == 1 for batch in batches)


def test_a_clip_without_faces_asks_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, detector = spoken(monkeypatch, "v2")
    monkeypatch.setattr(detector, "forward", lambda *arguments: pytest.fail("asked"))
    table = backend.track(pictures(0, 0, 0))
    assert table.num_rows == 0 and table.schema.metadata[b"frames"] == b"3"
    assert backend.still(np.zeros((300, 300, 3), np.uint8)).num_rows == 0


def test_faces_are_found_on_smaller_pictures_and_the_largest_kept_in_the_originals_pixels() -> None:
    seen: list[tuple[int, ...]] = []

    def finder(images: torch.Tensor) -> list[list[list[float]]]:
        seen.append(tuple(images.shape))
        return [[[0, 0, 10, 10, 0.9], [100, 50, 200, 250, 0.8], [20, 20, 60, 80, 0.7]] for _ in images]

    largest = pyfeat._LargestFaces(finder, 2)
    found = largest(torch.zeros(3, 3, 960, 1280))
    assert seen == [(3, 3, 480, 640)]
    assert found == [[[200, 100, 400, 500, 0.8], [40, 40, 120, 160, 0.7]]] * 3
    assert largest(torch.zeros(1, 3, 300, 300))[0][0] == [100, 50, 200, 250, 0.8]
    assert seen[-1] == (1, 3, 300, 300)


def test_a_file_of_classifiers_that_holds_other_objects_is_refused(tmp_path: Path) -> None:
    import skops.io
    from sklearn.preprocessing import StandardScaler

    skops.io.dump({"classifiers": [StandardScaler()]}, tmp_path / "trees.skops")
    pyfeat._check_classifiers(tmp_path)
    skops.io.dump({"classifiers": [torch.hub.load]}, tmp_path / "trees.skops")
    with pytest.raises(ValueError, match=r"more than classifiers: torch\.hub\.load"):
        pyfeat._check_classifiers(tmp_path)


def test_a_gaze_network_that_would_stay_untrained_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    save_file({f"module.{name}": value for name, value in network.state_dict().items()}, tmp_path / "all.safetensors")
    pyfeat._check_gaze(network, tmp_path)
    save_file({"0.weight": network[0].weight}, tmp_path / "all.safetensors")
    with pytest.raises(ValueError, match=r"lacks 3 tensors, such as 0\.bias"):
        pyfeat._check_gaze(network, tmp_path)


def test_damaged_weights_are_told_before_anything_is_imported(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="is no safetensors file"):
        PyFeat({"retinaface_r34": tmp_path, "face_multitask_v2": tmp_path})


# On py-feat's own classes


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    with Media(SAMPLES / "happy.mp4") as media:
        return list(media.frames(0.8))


@pytest.fixture(scope="module")
def second(pyfeat_cache: Callable[[str], Path]) -> Iterator[PyFeat]:
    backend = PyFeat(folders(pyfeat_cache("v2") / "weights"))
    yield backend
    backend.close()


@pytest.mark.slow
def test_both_backends_fill_tables_of_one_schema(
    second: PyFeat, frames: list[Frame], weight: Callable[[str], Path]
) -> None:
    landmarker = FaceLandmarker(weight("face-landmarker"))
    tables = {mediapipe.MEASURED: landmarker.track(frames), MEASURED["v2"]: second.track(frames)}
    for measured, table in tables.items():
        assert table.schema.equals(SCHEMA, check_metadata=False) and table.num_rows
        assert table.schema.names == SCHEMA.names
        assert [field.metadata for field in table.schema] == [field.metadata for field in SCHEMA]
        assert {b"backend", b"version", b"frames"} <= table.schema.metadata.keys()
        always = {"time", "track", "x0", "y0", "x1", "y1", "quality"}
        for name in table.column_names:
            assert table[name].null_count == (0 if name in measured | always else table.num_rows), name


@pytest.mark.slow
def test_every_column_is_measured_and_the_note_says_that_these_are_test_weights(
    second: PyFeat, frames: list[Frame]
) -> None:
    table = second.track(frames)
    assert table.schema.metadata[b"note"].decode() == NOTE
    assert table["time"].to_pylist() == sorted(frame.time for frame in frames for _ in range(2))
    values = np.column_stack([table[name].to_numpy() for name in ACTION_UNITS + EMOTIONS + BLENDSHAPES])
    assert np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all()
    assert np.column_stack([table[name].to_numpy() for name in EMOTIONS]).sum(1) == pytest.approx(1.0, abs=1e-5)
    assert np.ptp(table["AU12"].to_numpy()) > 0
    assert second.still(frames[0].rgb).num_rows == 2


@pytest.mark.slow
def test_the_size_of_batches_changes_nothing(
    second: PyFeat, frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = second.track(frames)
    monkeypatch.setattr(second, "_batch", 1)
    alone = second.track(frames)
    for name in sorted(MEASURED["v2"]):
        assert alone[name].to_numpy() == pytest.approx(together[name].to_numpy(), abs=1e-3), name


@pytest.mark.slow
def test_nobody_is_identified_and_gradients_stay_on(second: PyFeat, frames: list[Frame]) -> None:
    assert second._detector.identity_detector is None
    second.track(frames[:1])
    assert torch.is_grad_enabled()


@pytest.mark.slow
def test_the_multitask_test_weights_are_built_as_the_published_file_is(pyfeat_cache: Callable[[str], Path]) -> None:
    from safetensors import safe_open

    path = folders(pyfeat_cache("v2") / "weights")["face_multitask_v2"] / "face_multitask_v28.safetensors"
    with safe_open(path, "np") as file:
        names = list(file.keys())
        sizes = [int(np.prod(file.get_slice(name).get_shape())) for name in names]
    assert (len(sizes), sum(sizes)) == (373, 41_694_779)


@pytest.mark.slow
def test_detectorv1_measures_with_its_own_networks(pyfeat_cache: Callable[[str], Path], frames: list[Frame]) -> None:
    backend = PyFeat(folders(pyfeat_cache("v1") / "weights", "v1"), "v1", max_faces=1)
    table = backend.track(frames[:2])
    assert table.num_rows == 2 and "Detectorv1" in table.schema.metadata[b"version"].decode()
    for name in MEASURED["v1"]:
        assert table[name].null_count == 0 and np.isfinite(table[name].to_numpy()).all(), name
    assert backend._detector.identity_detector is None
    assert torch.is_grad_enabled()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v1", "v2"])
def test_the_real_weights_see_the_interviews_expressions(name: str) -> None:
    """Runs where the real weights are in the cache or in EMOPIPE_WEIGHTS; they are never fetched for it."""
    try:
        places = {
            repository: weights.resolve(folder.name, offline=True)
            for repository, folder in folders(Path(), name).items()
        }
    except EmopipeError as error:
        pytest.skip(str(error))
    with Media(SAMPLES / "interview.mp4") as media:
        table = PyFeat(places, name).track(media.frames(1))
    assert b"note" not in table.schema.metadata
    time = table["time"].to_numpy()
    happy, sad = ((time > start) & (time < end) for start, end in ((6.5, 9.3), (11.5, 15.3)))
    for column in ("AU12", "emotion_happiness"):
        assert table[column].to_numpy()[happy].mean() > table[column].to_numpy()[sad].mean()
    assert len(np.unique(time)) > 0.9 * int(table.schema.metadata[b"frames"])

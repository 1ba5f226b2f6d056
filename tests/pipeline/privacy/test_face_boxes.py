"""What is blurred covers a face wherever it was seen, between, and where it was lost."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from emopipe.extractors.face.table import face_table
from emopipe.pipeline.privacy.blur import blurred_image
from emopipe.pipeline.privacy.face_boxes import BlurSettings, FaceBoxes

PLAIN = BlurSettings(margin=0.0, hold=1.0)


def faces(*rows: tuple[float, int, float]) -> pa.Table:
    """Faces a tenth of the picture wide: time, track, left edge."""
    table = [{"time": t, "track": n, "x0": x, "y0": 0.2, "x1": x + 0.1, "y1": 0.4, "quality": 1.0} for t, n, x in rows]
    return face_table(table, backend="test", version="1", frames=len(rows))


def lefts(boxes: FaceBoxes, time: float) -> list[float]:
    return sorted(round(box[0], 3) for box in boxes.at(time))


def test_a_face_moves_between_samples_and_is_held_where_it_is_lost() -> None:
    boxes = FaceBoxes(faces((2.0, 0, 0.1), (2.2, 0, 0.3), (5.2, 0, 0.6)), PLAIN)
    assert lefts(boxes, 0.9) == []
    assert lefts(boxes, 1.1) == [0.1]
    assert lefts(boxes, 2.1) == [0.2]
    assert lefts(boxes, 3.0) == [0.3, 0.38]
    assert lefts(boxes, 3.7) == [0.45]
    assert lefts(boxes, 4.9) == [0.57, 0.6]
    assert lefts(boxes, 6.1) == [0.6]
    assert lefts(boxes, 6.3) == []


def test_in_a_long_absence_nothing_is_blurred_but_what_is_held() -> None:
    boxes = FaceBoxes(faces((0.0, 0, 0.1), (60.0, 0, 0.6)), PLAIN)
    assert lefts(boxes, 30.0) == []
    assert lefts(boxes, 59.5) == [0.6]


def test_no_table_has_no_faces() -> None:
    assert FaceBoxes(None, PLAIN).at(1.0) == []
    assert FaceBoxes(faces(), PLAIN).at(1.0) == []


@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 2), st.floats(0, 0.9)), min_size=1, max_size=12),
    st.floats(0, 2),
)
@example([(0.0, 0, 0.0), (5e-324, 0, 0.75)], 0.0)
def test_every_sampled_face_is_covered_with_its_margin(rows: list[tuple[float, int, float]], margin: float) -> None:
    rows = list({(time, track): (time, track, x) for time, track, x in rows}.values())
    boxes = FaceBoxes(faces(*rows), BlurSettings(margin=margin, hold=0.5))
    for time, _, x in rows:
        places = boxes.at(time)
        assert any(left <= x + 1e-6 and right >= min(x + 0.1, 1.0) - 1e-6 for left, _, right, _ in places)
        assert all(0 <= left <= right <= 1 and 0 <= top <= bottom <= 1 for left, top, right, bottom in places)


def test_a_blurred_place_keeps_colours_but_no_detail_and_the_rest_stays() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (100, 120, 3), dtype=np.uint8)
    image = blurred_image(rgb, [(0.25, 0.2, 0.75, 0.8)])
    inside, outside = image[20:80, 30:90], image.copy()
    outside[20:80, 30:90] = rgb[20:80, 30:90]
    assert np.array_equal(outside, rgb)
    assert abs(float(inside.mean()) - float(rgb[20:80, 30:90].mean())) < 5
    assert np.abs(np.diff(inside.astype(int), axis=1)).mean() < 5 < np.abs(np.diff(rgb.astype(int), axis=1)).mean()
    assert blurred_image(rgb, []) is rgb

"""Read pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emopipe.errors import (
    NotMedia,
)
from emopipe.pipeline.media.finding import checked


def read_image(path: str | Path) -> np.ndarray:
    """Read a picture file as upright RGB uint8 (height, width, 3).

    Raises:
        InputError: .
    """
    import cv2

    path = Path(path)
    data = checked(path, lambda: np.fromfile(path, np.uint8))
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if image is None:
        raise NotMedia("the file is no picture that can be decoded", path=path)
    return np.ascontiguousarray(image[:, :, ::-1])

"""Cut one face out of an image upright and at one scale, by landmarks."""

from __future__ import annotations

import numpy as np


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The map (2, 3) of shift, scale and rotation that brings `source` (n, 2) nearest to `target` (least squares)."""
    centre, goal = source.mean(0), target.mean(0)
    moved, wanted = source - centre, target - goal
    norm = max(1e-9, float((moved**2).sum()))
    cos = float((moved * wanted).sum()) / norm
    sin = float((moved[:, 0] * wanted[:, 1] - moved[:, 1] * wanted[:, 0]).sum()) / norm
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([turn, goal - turn @ centre])


def warped(rgb: np.ndarray, affine: np.ndarray, side: int) -> np.ndarray:
    """The image under a similarity map, uint8 (side, side, 3), scaled down without aliasing.

    Args:
        rgb: uint8 (height, width, 3).
        affine: (2, 3), from pixels of `rgb` to pixels of the result.
        side: of the result; what lies outside the image repeats its border.
    """
    import cv2

    size = np.array([rgb.shape[1], rgb.shape[0]])
    scale = float(np.linalg.norm(affine[:, 0]))
    back = np.linalg.inv(affine[:, :2])
    corners = (np.array([(0, 0), (side, 0), (0, side), (side, side)]) - affine[:, 2]) @ back.T
    margin = 2 / max(scale, 1e-6)
    low = np.clip(np.floor(corners.min(0) - margin), 0, size - 2).astype(int)
    high = np.clip(np.ceil(corners.max(0) + margin), low + 2, size).astype(int)
    part = np.ascontiguousarray(rgb[low[1] : high[1], low[0] : high[0]])
    inner = np.maximum(2, np.round((high - low) * min(1.0, scale))).astype(int)
    if scale < 1:
        part = cv2.resize(part, (int(inner[0]), int(inner[1])), interpolation=cv2.INTER_AREA)
    else:
        inner = high - low
    ratio = (high - low) / inner
    linear = affine[:, :2] * ratio
    shift = affine[:, :2] @ (low + 0.5 * ratio - 0.5) + affine[:, 2]
    whole = np.column_stack([linear, shift])
    face: np.ndarray = cv2.warpAffine(
        part, whole, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return face

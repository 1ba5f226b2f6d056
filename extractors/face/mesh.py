"""Pose-normalised face mesh: take head position, size and rotation out of the landmarks, keep the expression.

A mesh is aligned to a reference face by a similarity transform (Kabsch 1976, with scale) fitted on points that
facial muscles hardly move, then described by principal components learned from FER2013's training faces
(`benchmarks/mesh_basis.py`).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

BASIS_FILE: Final = Path(__file__).with_name("mesh_basis.safetensors")
#: Landmarks of the eye corners, nose, forehead and the sides of the head.
RIGID_POINTS: Final = np.array(
    [33, 133, 362, 263, 6, 168, 197, 195, 5, 4, 98, 327, 10, 67, 297, 54, 284, 151, 9, 127, 356, 234, 454, 132, 361]
)


def align(meshes: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Move, scale and rotate each mesh onto the reference.

    Args:
        meshes: (n, 478, 3) in pixels, any pose.
        reference: (478, 3).

    Returns:
        (n, 478, 3) in the reference's frame and units.
    """
    points, target = meshes[:, RIGID_POINTS], reference[RIGID_POINTS]
    centre, target_centre = points.mean(1, keepdims=True), target.mean(0)
    points, target = points - centre, target - target_centre
    left, singular, right = np.linalg.svd(np.swapaxes(points, 1, 2) @ target)
    sign = np.ones_like(singular)
    sign[:, 2] = np.sign(np.linalg.det(left @ right))
    rotation = (left * sign[:, None, :]) @ right
    scale = (singular * sign).sum(1) / (points**2).sum((1, 2))
    aligned: np.ndarray = scale[:, None, None] * ((meshes - centre) @ rotation) + target_centre
    return aligned


def fit_basis(meshes: np.ndarray, components: int, rounds: int = 4) -> dict[str, np.ndarray]:
    """Learn the reference face and the principal components of what alignment leaves.

    Args:
        meshes: (n, 478, 3) in pixels.
        components: how many to keep.
        rounds: repetitions of the generalised Procrustes mean (Gower 1975).

    Returns:
        reference (478, 3), components (components, 1434) and deviation (components,), float32.
    """
    first = meshes[0] - meshes[0].mean(0)
    reference = first / np.linalg.norm(first[RIGID_POINTS])
    for _ in range(rounds):
        mean = align(meshes, reference).mean(0)
        reference = (mean - mean.mean(0)) / np.linalg.norm((mean - mean.mean(0))[RIGID_POINTS])
    residual = (align(meshes, reference) - reference).reshape(len(meshes), -1)
    variance, vectors = np.linalg.eigh(residual.T @ residual / len(residual))
    order = np.argsort(variance)[::-1][:components]
    basis = {"reference": reference, "components": vectors[:, order].T, "deviation": np.sqrt(variance[order])}
    return {name: np.ascontiguousarray(value, np.float32) for name, value in basis.items()}


def mesh_components(mesh: np.ndarray) -> np.ndarray:
    """Describe one mesh (478, 3) by the packaged basis: float32 (80,), in standard deviations of the training faces."""
    basis = _basis()
    residual = (align(mesh[None].astype(np.float64), basis["reference"]) - basis["reference"]).reshape(-1)
    scores: np.ndarray = (basis["components"] @ residual) / basis["deviation"]
    return scores.astype(np.float32)


@cache
def _basis() -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return {name: value.astype(np.float64) for name, value in load_file(BASIS_FILE).items()}

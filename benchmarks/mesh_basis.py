"""Fit the packaged mesh basis (`extractors/face/mesh_basis.safetensors`) on FER2013's training faces.

    python benchmarks/mesh_basis.py --data DATA

DATA holds `fer2013.zip` and `fer2013.csv`. Deterministic for one version of MediaPipe.
"""

from __future__ import annotations

import argparse
import csv
import zipfile
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import save_file

from emopipe.extractors.face.mediapipe import FaceLandmarker
from emopipe.extractors.face.mesh import BASIS_FILE, fit_basis
from emopipe.extractors.face.table import MESH_COMPONENTS
from emopipe.pipeline import weights


def training_meshes(data: Path) -> np.ndarray:
    """Landmarks in pixels (n, 478, 3) of the training faces that are found."""
    meshes = []
    landmarker = FaceLandmarker(weights.resolve("face-landmarker"), max_faces=1)
    with zipfile.ZipFile(data / "fer2013.zip") as archive, (data / "fer2013.csv").open(newline="") as table:
        for row in csv.DictReader(table):
            if row["split"] == "train":
                encoded = np.frombuffer(archive.read(row["file"]), np.uint8)
                rgb = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[:, :, ::-1]
                meshes += landmarker.meshes(np.ascontiguousarray(rgb))
    landmarker.close()
    return np.stack(meshes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    meshes = training_meshes(parser.parse_args().data)
    basis = fit_basis(meshes, len(MESH_COMPONENTS))
    save_file(basis, BASIS_FILE)
    print(f"{len(meshes)} faces, {BASIS_FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()

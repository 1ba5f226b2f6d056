"""Test weights for py-feat: the architectures of the published files, filled with random values.

    python -m tests.pyfeat_weights FOLDER [v1|v2]

With EMOPIPE_WEIGHTS=FOLDER they take the place of the real ones. Wherever results say what measured them, the files'
own note says that these are test weights. RetinaFace is given a few values on purpose: it finds square faces of
128 or 256 pixels in about a dozen places of a frame, whatever the frame shows.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from emopipe.extractors.face.pyfeat import REPOSITORIES
from emopipe.extractors.import_isolation import contained
from emopipe.pipeline import weights
from emopipe.pipeline.weights import store

NOTE = "test weights with random values: what they measure means nothing"
#: How `face_multitask_v28.safetensors` is built; gives the 41,694,779 values in 373 tensors that its card names.
MULTITASK = {
    "n_au": 20,
    "n_emotion": 7,
    "n_blendshape": 52,
    "mesh_normalized": True,
    "use_head_v3": True,
    "drop_mefl": True,
    "gaze_eye_roi": True,
    "gaze_pose_6d": True,
    "gaze_bins": 180,
}


def folders(root: Path, detector: str = "v2") -> dict[str, Path]:
    """Repository of py-feat's hub -> the folder below `root` that has its weight's catalogue name."""
    return {name: root / f"pyfeat-{name.replace('_', '-')}" for name in REPOSITORIES[detector]}


def write_weights(root: Path, detector: str = "v2", seed: int = 0) -> None:
    """Write every weight of a detector that is not there yet."""
    import torch

    for name, place in folders(root, detector).items():
        if place.exists():
            continue
        place.mkdir(parents=True)
        with contained(), torch.random.fork_rng():
            torch.manual_seed(seed)
            globals()[f"_write_{name}"](place)


def place_in_cache(cache: Path, detector: str = "v2") -> None:
    """Put the weights of a detector where the catalogue has them in a cache."""
    write_weights(cache / "weights", detector)
    for place in folders(cache / "weights", detector).values():
        store._write_record(weights.entry(place.name), place)


def _save(tensors: dict[str, Any], path: Path, **metadata: str) -> None:
    from safetensors.torch import save_file

    tensors = {name: value.contiguous() for name, value in tensors.items()}
    save_file(tensors, path, {"note": NOTE, **metadata})


def _write_retinaface_r34(place: Path) -> None:
    import torch
    from feat.face_detectors.Retinaface.Retinaface_test import Retinaface

    tensors = Retinaface(device="cpu", pretrained="none").net.state_dict()
    for name, value in tensors.items():
        if name.startswith("BboxHead."):
            value.zero_()
    for level, (smaller, larger) in enumerate([(-9.0, -9.0), (-9.0, 1.0), (1.0, -9.0)]):
        tensors[f"ClassHead._convs.{level}.weight"] *= 0.01
        tensors[f"ClassHead._convs.{level}.bias"].copy_(torch.tensor([0.0, smaller, 0.0, larger]))
    _save(tensors, place / "model.safetensors")


def _write_face_multitask_v2(place: Path) -> None:
    from feat.multitask.inference import HF_WEIGHTS_FILE
    from feat.multitask.model_v2 import MEGraphAUv2, ModelV2Config

    model = MEGraphAUv2(ModelV2Config(**MULTITASK, pretrained=False))
    _save(model.state_dict(), place / HF_WEIGHTS_FILE, config=json.dumps(MULTITASK))


def _write_mobilefacenet(place: Path) -> None:
    import torch
    from feat.landmark_detectors.mobilefacenet_test import MobileFaceNet

    tensors = MobileFaceNet([112, 112], 136, device="cpu").state_dict()
    # Landmarks around the middle of the face, as they must be for the face to be aligned.
    tensors["output_layer.bn.bias"].copy_(torch.rand(136) * 0.6 + 0.2)
    torch.save({"state_dict": tensors}, place / "mobilefacenet_model_best.pth.tar")


def _write_xgb_au(place: Path) -> None:
    import skops.io
    import xgboost
    from feat.au_detectors.StatLearning.SL_test import XGBClassifier
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    gradients = rng.random((24, 5408)).astype(np.float32)
    scaler = StandardScaler().fit(gradients)
    reduced = PCA(8).fit(scaler.transform(gradients))
    inputs = np.hstack([reduced.transform(scaler.transform(gradients)), 112 * rng.random((24, 136))])
    trees = {
        name: xgboost.XGBClassifier(n_estimators=5, max_depth=3).fit(inputs, rng.permutation(np.arange(24) % 2))
        for name in XGBClassifier().au_keys
    }
    bundle = XGBClassifier()
    bundle.load_weights(scaler, reduced, scaler, reduced, scaler, reduced, trees)
    skops.io.dump(bundle, place / "xgb_au_classifier_v2.skops")


def _write_resmasknet(place: Path) -> None:
    import torch
    from feat.emo_detectors.ResMaskNet.resmasknet_test import resmasking_dropout1

    (place / "config.json").write_text(json.dumps({"in_channels": 3, "num_classes": 7}))
    torch.save({"net": resmasking_dropout1().state_dict()}, place / "ResMaskNet_Z_resmasking_dropout1_rot30.pth")


def _write_l2cs(place: Path) -> None:
    from feat.gaze_detectors.l2cs import l2cs_resnet50

    _save(l2cs_resnet50().state_dict(), place / "l2cs_gaze360_resnet50.safetensors")


def _write_pose_mlp_v2(place: Path) -> None:
    from feat.utils.face_pose_mlp import PoseMLP

    _save(PoseMLP().state_dict(), place / "pose_mlp_v2.safetensors")
    normalization = {"mean": [0.0] * 6, "std": [0.3] * 6}
    architecture = {"hidden": [512, 256, 128], "dropout": 0.15, "output_normalization": normalization}
    (place / "pose_mlp_v2.json").write_text(json.dumps({"architecture": architecture}))


if __name__ == "__main__":
    write_weights(Path(sys.argv[1]), *sys.argv[2:])

"""Find, read and verify checkpoints without torch: where they lie, what they seal, and whether they are whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emopipe.constants import EXPRESSION_ENCODER
from emopipe.errors import CheckpointError, FeatureMismatch, OutputError

#: Entries of an extraction table that do not change the meaning of features.
_IGNORED = frozenset({"version", "versions", "device", "threads", "max_faces"})

#: How names of the face's columns begin that the expression encoder measures.
_BY_ENCODER: Final = ("emotion_", "expression_")

#: Raised when the layout changes so that older readers must refuse.
FORMAT: Final = 1

#: Entries of a configuration that are tables.
_TABLES: Final = ("options", "schema", "extraction", "priors", "training")
#: Where the checkpoints that come with the package live.
SHIPPED: Final = Path(__file__).parent / "checkpoints"


#: What a checkpoint's `training` calls :attr:`Sealed.confidences`.
CONFIDENCES: Final = "left_out_confidences"


@dataclass(frozen=True)
class Sealed:
    """What a checkpoint's configuration says.

    Attributes:
        id: of the checkpoint.
        schema: modality -> names of the features that it was trained on.
        extraction: the sealed extraction configuration.
        model, options: the name of its model, and what it is built from.
        confidences: quantiles 0, 0.01, ... 1 of how sure it was of answers to corpora that its recipe did not see;
            empty where that was not measured.
    """

    id: str
    schema: Mapping[str, tuple[str, ...]]
    extraction: Mapping[str, Any]
    model: str
    options: Mapping[str, Any]
    confidences: tuple[float, ...] = ()

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return tuple(self.schema)

    @property
    def relative(self) -> bool:
        """Whether it reads features relative to the speaker's other utterances."""
        return bool(self.options.get("relative"))


def read_sealed(path: str | Path) -> Sealed:
    """Read and verify a checkpoint without building its network.

    Raises:
        CheckpointError: it is missing, of a newer format, incomplete or damaged.
    """
    folder = find(path)
    config = read_config(folder)
    weights = read_weights(folder, config)
    name = config.pop("id", None)
    if identity(weights, json.dumps(config, indent=1, ensure_ascii=False)) != name:
        raise damaged(folder, "the configuration was changed")
    try:
        schema = {str(modality): tuple(map(str, names)) for modality, names in config["schema"].items()}
        extraction, options = _with_later_settings(config["extraction"]), dict(config["options"])
        confidences = tuple(map(float, config["training"].get(CONFIDENCES, ())))
        return Sealed(str(name), schema, extraction, str(config["model"]), options, confidences)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(folder, f"config.json lacks what a checkpoint needs: {error!r}") from error


def _with_later_settings(extraction: Mapping[str, Any]) -> dict[str, Any]:
    """Extraction tables with what was not a setting when they were sealed, and would be on today by default."""
    voice = {"voice": {"speaker_encoder": "", **extraction["voice"]}} if "voice" in extraction else {}
    return {**extraction, **voice}


def check_features(
    trained: Mapping[str, Sequence[str]],
    sealed: Mapping[str, Any],
    offered: Mapping[str, Sequence[str]],
    extraction: Mapping[str, Any] | None = None,
) -> None:
    """Refuse features that a model was not trained on.

    Args:
        trained: modality -> feature names it was trained on.
        sealed: the extraction configuration that it seals.
        offered: modality -> feature names offered; modalities that are not offered count as absent and pass.
        extraction: the extraction configuration offered; its tables `face`, `voice`, `text` are compared with the
            sealed ones except for library versions and device, and so is whether `people` takes features relative to
            a person's baseline (whichever that is). Where both tell `versions`, the expression encoder must be the
            same for a model that reads what it measures.

    Raises:
        FeatureMismatch: the message names both sides of every difference.
    """
    faults: list[str] = []
    for name in trained:
        if name in offered:
            faults += _name_faults(name, tuple(trained[name]), tuple(offered[name]))
            faults += _table_faults(name, sealed.get(name), (extraction or {}).get(name))
            faults += _baseline_faults(name, sealed, extraction)
    if not faults and "face" in offered and any(name.startswith(_BY_ENCODER) for name in trained.get("face", ())):
        faults += _encoder_faults(sealed, extraction)
    if not set(trained) & set(offered):
        faults.append(f"trained on {', '.join(trained)}, offered {', '.join(offered) or 'nothing'}")
    if faults:
        raise FeatureMismatch(
            "the features offered are not those the checkpoint was trained on: " + "; ".join(faults),
            hint="Extract with the checkpoint's own configuration, or train a new checkpoint on these features",
        )


def _name_faults(modality: str, trained: tuple[str, ...], offered: tuple[str, ...]) -> list[str]:
    if trained == offered:
        return []
    if len(trained) != len(offered):
        return [f"{modality}: trained on {len(trained)} features, offered {len(offered)}"]
    where = next(index for index in range(len(trained)) if trained[index] != offered[index])
    return [f"{modality}: feature {where} was {trained[where]!r} in training, offered {offered[where]!r}"]


def _table_faults(modality: str, trained: Any, offered: Any) -> list[str]:
    """An option that one side does not know is as good as off (false, empty or 0) there: it came up later."""
    if not isinstance(trained, Mapping) or not isinstance(offered, Mapping):
        return []
    keys = sorted((trained.keys() | offered.keys()) - _IGNORED)
    pairs = [(key, *(json.dumps(side.get(key) or None) for side in (trained, offered))) for key in keys]
    differ = [(key, old, new) for key, old, new in pairs if json.loads(old) != json.loads(new)]
    return [f"{modality}.{key}: trained on {old}, offered {new}" for key, old, new in differ]


def _encoder_faults(trained: Mapping[str, Any], offered: Mapping[str, Any] | None) -> list[str]:
    """Another encoder's columns have the same names and mean something else."""
    if offered is None or "versions" not in trained or "versions" not in offered:
        return []
    old, new = (str(one["versions"].get(EXPRESSION_ENCODER, "")) for one in (trained, offered))
    told = [f"by the {EXPRESSION_ENCODER} {one}" if one else f"by no known {EXPRESSION_ENCODER}" for one in (old, new)]
    return [] if old == new else [f"face: trained on features measured {told[0]}, offered {told[1]}"]


def _baseline_faults(modality: str, trained: Mapping[str, Any], offered: Mapping[str, Any] | None) -> list[str]:
    if offered is None or _is_relative(modality, trained) == _is_relative(modality, offered):
        return []
    told = [
        "relative to a baseline" if _is_relative(modality, one) else "without a baseline" for one in (trained, offered)
    ]
    return [f"{modality}: trained on features {told[0]}, offered {told[1]}"]


def _is_relative(modality: str, extraction: Mapping[str, Any]) -> bool:
    people = extraction.get("people", {})
    return people.get("baseline", "none") != "none" and modality in people.get("baseline_of", ())


def identity(weights: bytes, spec: str) -> str:
    """Compute the checkpoint id: the first 12 hex digits of sha256 over weights and configuration."""
    return hashlib.sha256(weights + spec.encode()).hexdigest()[:12]


def read_weights(folder: Path, config: dict[str, Any]) -> bytes:
    """The bytes of the weights; their hash is taken out of the configuration and compared."""
    try:
        weights = (folder / "model.safetensors").read_bytes()
    except OSError as error:
        raise damaged(folder, f"the weights cannot be read: {error}") from error
    if hashlib.sha256(weights).hexdigest() != config.pop("weights_sha256", None):
        raise damaged(folder, "the weights are not those the configuration names")
    return weights


def shipped() -> list[str]:
    """List the names of the checkpoints that come with the package."""
    return sorted(one.parent.name for one in SHIPPED.glob("*/config.json"))


def find(path: str | Path) -> Path:
    """Find the folder of a checkpoint given by its folder or its name."""
    for folder in (Path(path), SHIPPED / str(path)):
        if (folder / "config.json").is_file():
            return folder
    known = ", ".join(shipped())
    hint = "Give the folder of a checkpoint made by `emopipe train`" + (f", or one of: {known}" if known else "")
    raise CheckpointError("there is no checkpoint here", hint=hint, path=path)


def check_target(folder: Path) -> None:
    """Refuse to write a checkpoint over anything but an earlier one, or an empty folder.

    Raises:
        OutputError: something else is there.
    """
    is_free = not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir()))
    if not is_free and not all((folder / name).is_file() for name in ("config.json", "model.safetensors")):
        hint = "Name a folder that is not there yet, or the checkpoint that it shall replace"
        raise OutputError("a checkpoint cannot take the place of what is here", path=folder, hint=hint)


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` without its format."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        json.dumps(config, ensure_ascii=False).encode()  # half a surrogate pair is not text
        version = config.pop("format")
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise damaged(folder, f"config.json cannot be read: {error!r}") from error
    if version != FORMAT:
        raise CheckpointError(
            f"the checkpoint has format {version}, this version reads {FORMAT}",
            hint="Install the version of emopipe that wrote it, or train again",
            path=folder,
        )
    wrong = [name for name in _TABLES if not isinstance(config.get(name, {}), dict)]
    if wrong:
        raise damaged(folder, f"{wrong[0]} in config.json is not a table")
    return dict(config)


def damaged(folder: Path, what: str) -> CheckpointError:
    """The error for a checkpoint that is not whole."""
    return CheckpointError(f"the checkpoint is damaged: {what}", hint="Get or train it again", path=folder)

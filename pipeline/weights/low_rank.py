"""Low-rank changes (LoRA, Hu et al. 2022) that come with the package, by which text encoders read emotions.

`benchmarks/words_encoder.py` makes them.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS: Final = "model.safetensors"


@dataclass(frozen=True)
class Changes:
    """Changes of an encoder's linear maps.

    Attributes:
        name: of the file, beside this module.
        sha256: of its bytes.
    """

    name: str
    sha256: str

    @property
    def file(self) -> Path:
        """Where the file lies."""
        return Path(__file__).parent / self.name

    def added(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The state with the changes: to the weight of each changed `NAME` is added `NAME.out` times `NAME.in`.

        Raises:
            ValueError: the file is not that of this release; KeyError when the state is of another network.
        """
        from safetensors.torch import load

        content = self.file.read_bytes()
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ValueError(f"{self.name} is not the file that came with the package")
        changes = load(content)
        for name in [name.removesuffix(".in") for name in changes if name.endswith(".in")]:
            state[f"{name}.weight"] += changes[f"{name}.out"].float() @ changes[f"{name}.in"].float()
        return state


#: Of multilingual-e5-small, and of all-MiniLM-L6-v2.
MULTILINGUAL: Final = Changes("words.safetensors", "b90c21d4965f5780e9e7b2d5d3187846c76f71c738e91dd26990e1d9ffe08d56")
ENGLISH: Final = Changes(
    "words_english.safetensors", "f8c4a333b55ccc98cb656e16963c3dc4eb68c2ea5b6782b006b0c6fe1ca28166"
)


def emotion_from_minilm(source: Path, target: Path) -> None:
    """all-MiniLM-L6-v2, tuned to emotions.

    Args:
        source: folder of the encoder as it comes, in transformers' format.
        target: the folder to write.

    Raises:
        ValueError: it is not that encoder, or the changes are not those of this release.
    """
    from safetensors.torch import load_file, save_file

    try:
        state = ENGLISH.added(load_file(source / WEIGHTS))
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"not all-MiniLM-L6-v2: {error}") from error
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(WEIGHTS), dirs_exist_ok=True)
    save_file(state, target / WEIGHTS, metadata={"format": "pt"})

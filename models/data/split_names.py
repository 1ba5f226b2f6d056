"""Names of splits: what people call training, validation and test."""

from __future__ import annotations

from typing import Final

from emopipe.errors import ConfigError

TRAIN, VALID, TEST = "train", "valid", "test"
#: Each split, and what else it is called, in any case.
SPELLINGS: Final = {
    TRAIN: ("train", "training", "trn"),
    VALID: ("valid", "val", "validation", "dev", "devel", "development"),
    TEST: ("test", "testing", "tst"),
}
HINT: Final = "Use train, valid (or val, dev, validation) and test"
_SPLITS: Final = {spelling: split for split, spellings in SPELLINGS.items() for spelling in spellings}


def split_or_all(name: str) -> str | None:
    """A split by any of its names; None stands for every row, `all`.

    Raises:
        ConfigError: an unknown name.
    """
    if name == "all":
        return None
    split = split_name(name)
    if split is None:
        raise ConfigError(f"there is no split {name!r}", hint=f"{HINT}, or all")
    return split


def split_name(name: str) -> str | None:
    """Train, valid or test, by any of their names; None for an unknown one."""
    return _SPLITS.get(name.strip().casefold())

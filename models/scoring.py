"""How values of sentiment are scored: as the literature of the corpus that they are of does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

#: Whose literature scores values of sentiment.
Kind = Literal["mosi", "ch-sims", "ch-sims-v2"]

#: Values of CH-SIMS are cut to this before they are scored.
CH_SIMS_LIMIT: Final = 1.0
#: Corpus -> how its values of sentiment are scored.
KINDS: Final[dict[str, Kind]] = {"mosi": "mosi", "mosei": "mosi", "ch-sims": "ch-sims", "ch-sims-v2": "ch-sims-v2"}
_TITLES: Final[dict[Kind, str]] = {"mosi": "MOSI", "ch-sims": "CH-SIMS", "ch-sims-v2": "CH-SIMS v2"}


@dataclass(frozen=True)
class Scoring:
    """How values are scored, and what that was chosen by.

    Attributes:
        kind: whose literature scores them so.
        why: what it was chosen by.
    """

    kind: Kind
    why: str

    def words(self) -> str:
        """The choice as a sentence."""
        return f"Values are scored as those of {_TITLES[self.kind]}: {self.why}."

    def cut(self, values: NDArray[Any]) -> NDArray[Any]:
        """(N,) answers as they are scored: CH-SIMS's are cut to its range."""
        return values if self.kind == "mosi" else np.clip(values, -CH_SIMS_LIMIT, CH_SIMS_LIMIT)


def scoring(corpora: Sequence[str], label: str, largest: float) -> Scoring:
    """Choose how values are scored: as the corpus that the rows are of is, else by the range of the labels.

    Args:
        corpora: names of the corpora that the rows are of.
        label: the column that is predicted; the corpora's own are called sentiment, sentiment_text and so on.
        largest: absolute value of the labels.
    """
    kinds = {KINDS.get(name) for name in corpora} if label.split("_", maxsplit=1)[0] == "sentiment" else set()
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is not None:
        return Scoring(kind, f"the corpus is {' and '.join(sorted(corpora))}")
    kind = by_range(largest)
    return Scoring(kind, f"no corpus with metrics of its own is named, and labels reach {largest:.3g}")


def by_range(largest: float) -> Kind:
    """Whose literature scores values up to this, as far as that tells."""
    return "ch-sims" if largest <= CH_SIMS_LIMIT else "mosi"

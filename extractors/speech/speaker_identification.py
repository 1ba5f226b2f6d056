"""Who a voice belongs to, by comparison with enrolled voices."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def match_voices(
    voices: Mapping[int, np.ndarray | None], enrolled: Mapping[str, np.ndarray], recognised: float
) -> dict[int, str]:
    """Assign enrolled names to the speakers of a recording: the one-to-one assignment of greatest total cosine.

    Args:
        voices: number of a speaker -> mean unit vector (dims,); None for one who speaks too little.
        enrolled: name -> mean unit vector (dims,).
        recognised: an enrolled voice is a person's when their vectors have at least this cosine. Voices of one person
            differ more between emotions than this, but rarely between recordings.

    Returns:
        Number -> name; pairs whose cosine is below `recognised` are left out.
    """
    from scipy.optimize import linear_sum_assignment

    heard = {number: voice for number, voice in voices.items() if voice is not None}
    if not heard or not enrolled:
        return {}
    numbers, names = list(heard), list(enrolled)
    cosines = np.array([[float(heard[number] @ enrolled[name]) for name in names] for number in numbers])
    pairs = zip(*linear_sum_assignment(-cosines), strict=True)
    return {numbers[row]: names[column] for row, column in pairs if cosines[row, column] >= recognised}

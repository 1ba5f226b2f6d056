"""Sound that lies in memory or in a file, read by one thread or by several."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from emopipe.pipeline.media import sound as module
from emopipe.pipeline.media.sound import Sound


@pytest.mark.parametrize("in_memory", [True, False])
def test_threads_that_read_at_the_same_time_get_their_own_part(
    in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_memory:
        monkeypatch.setattr(module, "SOUND_IN_MEMORY", 1000)
    sound = Sound()
    sound.append(np.arange(200_000, dtype=np.float32))

    def read(start: int) -> bool:
        return all(np.array_equal(sound[at : at + 50], np.arange(at, at + 50)) for at in range(start, 190_000, 997))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(16)))
    sound.close()

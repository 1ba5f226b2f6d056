"""Sound that need not be in memory as a whole."""

from __future__ import annotations

import tempfile
from threading import Lock
from typing import Any, Final

import numpy as np

#: Sound beyond this lies in a temporary file, in bytes.
SOUND_IN_MEMORY: Final = 16 << 20
#: Zeros written at once, in samples.
SILENCE_AT_ONCE: Final = 1 << 20


class Sound:
    """Mono sound at 16 kHz, read slice by slice; what is longer than a few minutes lies in a temporary file.

    The file has no name and vanishes with the process. Slices are float32 arrays (samples,), and so is the whole,
    through `np.asarray`. Several threads may read at a time.

    Attributes:
        peak: the greatest absolute value of a sample.
    """

    dtype: Final = np.dtype(np.float32)

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(SOUND_IN_MEMORY)  # noqa: SIM115
        self._place = Lock()
        self._length = 0
        self.peak = 0.0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, step = part.indices(self._length)
        with self._place:
            self._file.seek(start * 4)
            read = self._file.read(max(0, stop - start) * 4)
        return np.frombuffer(bytearray(read), np.float32)[::step]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32, copy=False)

    def append(self, samples: np.ndarray) -> None:
        """Add float32 samples (samples,) at the end."""
        if len(samples):
            self.peak = max(self.peak, float(np.abs(samples).max()))
        with self._place:
            self._file.seek(self._length * 4)
            self._file.write(np.ascontiguousarray(samples, np.float32).tobytes())
            self._length += len(samples)

    def append_silence(self, samples: int) -> None:
        """Add so many zeros at the end."""
        for start in range(0, samples, SILENCE_AT_ONCE):
            self.append(np.zeros(min(SILENCE_AT_ONCE, samples - start), np.float32))

    def close(self) -> None:
        """Free the memory or file that holds it."""
        self._file.close()

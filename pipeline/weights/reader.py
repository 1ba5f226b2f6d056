"""Read numbers, strings and arrays out of little-endian binary data, one after another."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Reader:
    """Reads little-endian values from bytes, one after another.

    Raises:
        EOFError, struct.error: the data end inside a value.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offset = 0

    def number(self, code: str) -> int:
        """Read one number of a format character of `struct`."""
        value: int = struct.unpack_from(f"<{code}", self.data, self.offset)[0]
        self.offset += struct.calcsize(f"<{code}")
        return value

    def take(self, count: int) -> int:
        """Skip `count` bytes; returns where they begin."""
        begin = self.offset
        self.offset += count
        if self.offset > len(self.data):
            raise EOFError("it ends inside a value")
        return begin

    def text(self, length_code: str) -> str:
        """Read a string behind its length in bytes."""
        count = self.number(length_code)
        begin = self.take(count)
        return self.data[begin : begin + count].decode()

    def array(self, dtype: Any, count: int) -> Array:
        """Read `count` numbers as an array that shares memory with the data."""
        kind = np.dtype(dtype)
        return np.frombuffer(self.data, kind, count, self.take(count * kind.itemsize))

"""Read pickled data without running pickled code: numpy arrays and builtins only.

A pickle names functions for the reader to call. This reader calls none: the few names that numpy's arrays need are
answered by stand-ins of our own, every other name is refused, and not even numpy's own unpickling sees the data.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emopipe.errors import DatasetError


class Dtype:
    """Stands for a numpy dtype: its name, such as `f4`, and its byte order."""

    def __init__(self, name: str, align: bool = False, copy: bool = False) -> None:
        self.name = name
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def array(self, shape: tuple[int, ...], order: str, content: Any) -> NDArray[Any]:
        """An array over raw bytes, or over a list when the dtype is that of objects.

        Raises:
            ValueError: content of another size, or a dtype that is none of numbers, text and objects.
        """
        if not re.fullmatch(r"[biufcSUO]\d+", self.name):
            raise ValueError(f"dtype {self.name!r} is not one of numbers, text or objects")
        if not self.name.startswith("O"):
            dtype = np.dtype(self.order + self.name if self.order in ("<", ">") else self.name)
            return np.frombuffer(content, dtype).reshape(shape, order="F" if order == "F" else "C")
        flat = np.empty(len(content), dtype=object)
        for place, one in enumerate(content):
            flat[place] = one
        return flat.reshape(shape)


class Array:
    """Stands for a numpy array until its content is asked for."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, fortran, self.content = state
        self.order = "F" if fortran else "C"

    def numpy(self) -> NDArray[Any]:
        """The array; of objects where it was one, their content untouched.

        Raises:
            ValueError, TypeError, AttributeError: the pickle described no array.
        """
        array: NDArray[Any] = self.dtype.array(self.shape, self.order, self.content)
        return array


def _reconstruct(kind: Any, shape: Any, code: Any) -> Array:
    return Array()


def _from_buffer(content: Any, dtype: Dtype, shape: tuple[int, ...], order: str) -> Array:
    array = Array()
    array.__setstate__((1, shape, dtype, order == "F", content))
    return array


def _scalar(dtype: Dtype, content: bytes) -> Any:
    return dtype.array((), "C", content).item()


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How old pickle protocols spell bytes."""
    return text.encode("latin1")


def _nothing() -> bytes:
    """How they spell no bytes at all."""
    return b""


_NUMPY: Final[dict[tuple[str, str], Callable[..., Any]]] = {
    ("multiarray", "_reconstruct"): _reconstruct,
    ("multiarray", "scalar"): _scalar,
    ("numeric", "_frombuffer"): _from_buffer,
}

#: Everything that a pickle may name. Numpy 2 moved `numpy.core` to `numpy._core`.
_ALLOWED: Final[dict[tuple[str, str], Callable[..., Any]]] = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Dtype,
    ("_codecs", "encode"): _latin1,
    ("__builtin__", "bytes"): _nothing,
    ("builtins", "bytes"): _nothing,
    **{(f"numpy.{core}.{module}", name): use for (module, name), use in _NUMPY.items() for core in ("core", "_core")},
}


class _Refusal(Exception):
    """The pickle names what it has no business with."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Refusal(f"{module}.{name}")
        use = _ALLOWED[module, name]
        # A pickle can set attributes of what it is given, so it gets functions that nobody else calls.
        return use if isinstance(use, type) else lambda *arguments: use(*arguments)  # noqa: PLW0108


def load(path: Path) -> Any:
    """The content of a pickle; numpy arrays are :class:`Array`.

    Raises:
        DatasetError: the file cannot be read, is damaged, or names anything but numpy arrays.
    """
    try:
        with path.open("rb") as file:
            return _Unpickler(file).load()
    except _Refusal as refusal:
        raise DatasetError(
            f"the pickle asks for {str(refusal)[:80]}, which was refused: only numpy arrays and builtins are read",
            hint="Do not open it with other tools unless you trust who made it",
            path=path,
        ) from None
    except Exception as error:  # damaged pickles raise almost anything
        raise DatasetError(f"the file cannot be read as a pickle: {error!r:.200}", path=path) from error

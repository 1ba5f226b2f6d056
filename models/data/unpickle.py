"""Read pickled data without running pickled code: arrays of numpy, tensors of torch and builtins only.

A pickle names functions for the reader to call. This reader calls none: the few names that arrays and tensors need are
answered by stand-ins of our own, every other name is refused, and neither numpy's nor torch's own unpickling sees the
data.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
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


#: Classes of torch's storages, and the dtypes of what they hold.
STORAGES: Final = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}


@dataclass(frozen=True)
class Storage:
    """Stands for the numbers of a torch tensor: the file that torch writes of them by itself, inside the pickle."""

    content: bytes

    def numbers(self) -> NDArray[Any]:
        """All of them, (N,).

        Raises:
            ValueError: it is not such a file, or holds numbers of another kind.
        """
        file = io.BytesIO(self.content)
        try:
            magic, _, system = (_StorageUnpickler(file).load() for _ in range(3))
            dtype, count = _StorageUnpickler(file).load()
            _StorageUnpickler(file).load()  # names of the storages, of which there is one
            if magic != _TORCH_MAGIC or not system["little_endian"] or int.from_bytes(file.read(8), "little") != count:
                raise ValueError("the tensor is not in torch's layout")
            return np.frombuffer(file.read(), np.dtype(dtype), count)
        except Exception as error:  # damaged pickles raise almost anything
            raise ValueError(f"the tensor cannot be read: {error!r:.100}") from error


_TORCH_MAGIC: Final = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True)
class Tensor:
    """Stands for a torch tensor until its content is asked for."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def numpy(self) -> NDArray[Any]:
        """The tensor as an array.

        Raises:
            ValueError, TypeError, IndexError, AttributeError: the pickle described no tensor.
        """
        numbers = self.storage.numbers()
        if math.prod(self.shape) > len(numbers):
            raise ValueError(f"the tensor has the shape {self.shape} of {len(numbers)} numbers")
        places = np.full(self.shape, self.offset, dtype=np.int64)
        for axis, (size, stride) in enumerate(zip(self.shape, self.strides, strict=True)):
            if stride < 0 or self.offset < 0:
                raise ValueError("the tensor reaches outside of its numbers")
            places += (np.arange(size) * stride).reshape(-1, *[1] * (len(self.shape) - axis - 1))
        array: NDArray[Any] = numbers[places]
        return array


def _storage(content: bytes) -> Storage:
    return Storage(content)


def _tensor(storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> Tensor:
    return Tensor(storage, offset, shape, strides)


def _no_hooks() -> dict[str, Any]:
    """Stands for the empty ordered dictionary of a tensor's hooks."""
    return {}


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
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("collections", "OrderedDict"): _no_hooks,
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


class _StorageUnpickler(pickle.Unpickler):
    """Reads the parts of the file that torch writes of a storage, which name its class and how many numbers it has."""

    def find_class(self, module: str, name: str) -> Any:
        if module != "torch" or name not in STORAGES:
            raise _Refusal(f"{module}.{name}")
        return STORAGES[name]

    def persistent_load(self, name: Any) -> tuple[str, int]:
        """Dtype and count of the storage that a name describes: its kind, class, key, device and count."""
        _, dtype, _, _, count = name[:5]
        return str(dtype), int(count)


def load(path: Path) -> Any:
    """The content of a pickle; numpy arrays are :class:`Array`, torch tensors :class:`Tensor`.

    Raises:
        DatasetError: the file cannot be read, is damaged, or names anything but arrays and tensors.
    """
    try:
        with path.open("rb") as file:
            return _Unpickler(file).load()
    except _Refusal as refusal:
        raise DatasetError(
            f"the pickle asks for {str(refusal)[:80]}, which was refused: only arrays, tensors and builtins are read",
            hint="Do not open it with other tools unless you trust who made it",
            path=path,
        ) from None
    except Exception as error:  # damaged pickles raise almost anything
        raise DatasetError(f"the file cannot be read as a pickle: {error!r:.200}", path=path) from error

"""Validate settings: frozen dataclasses from TOML tables, every value within the bounds that its field declares.

Bounds stand at the fields, as :data:`Share` or another of the aliases below. Upper bounds lie far above what anybody
sensible asks for: they are there for slips of the pen. Whatever a setting may be, it is never NaN or infinite.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Interval

from emopipe.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

C = TypeVar("C")
V = TypeVar("V", int, float)

#: A share of something, a confidence, or a probability.
Share = Annotated[float, Interval(ge=0, le=1)]
#: The chance of a dropout, or another share that must leave something over.
Chance = Annotated[float, Interval(ge=0, lt=1)]
#: Seconds, up to a day; 0 where there is no need to wait.
Seconds = Annotated[float, Interval(ge=0, le=86_400)]
#: Seconds of a stretch that time is cut into.
Length = Annotated[float, Interval(ge=0.1, le=86_400)]
#: Nothing, written as 0.
Zero = Annotated[float, Interval(ge=0, le=0)]
#: Seconds of a window within an utterance, at least a step of Whisper's encoder; 0 for the whole utterance.
Window = Zero | Annotated[float, Interval(ge=0.02, le=86_400)]
#: The weight of a term of a loss; 0 leaves it out.
Factor = Annotated[float, Interval(ge=0, le=1_000_000)]
#: The greatest magnitude of a predicted value.
Limit = Annotated[float, Interval(gt=0, le=1_000_000)]
#: How many: rows, epochs, steps.
Count = Annotated[int, Interval(ge=1, le=1_000_000)]
#: How many, and 0 for none, or for as many as there are.
CountOrNone = Annotated[int, Interval(ge=0, le=1_000_000)]
#: Channels of a layer.
Width = Annotated[int, Interval(ge=1, le=65_536)]
#: Heads of an attention.
Heads = Annotated[int, Interval(ge=1, le=1024)]
#: Layers of a transformer; 0 for none.
Layers = Annotated[int, Interval(ge=0, le=1000)]
#: Steps that a convolution sees.
Kernel = Annotated[int, Interval(ge=1, le=10_001)]
#: The rank of low-rank changes.
Rank = Annotated[int, Interval(ge=1, le=4096)]
#: Networks that are trained side by side.
Members = Annotated[int, Interval(ge=1, le=100)]
#: Tokens of a text, those that mark its ends included; where these alone are asked for, tokenizers do not cut at all.
Tokens = Annotated[int, Interval(ge=3, le=1_000_000)]

#: What hints call plain values.
WORDS: Final[Mapping[Any, str]] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
#: More of a value than this is not repeated in a message.
SHOWN: Final = 80


def of_modality(setting: V | Mapping[str, V], modality: str) -> V:
    """Look up what a setting, one for all modalities or one for each, says of a modality."""
    return setting[modality] if isinstance(setting, Mapping) else setting


def change(config: C, options: Mapping[str, Any], what: str) -> C:
    """Copy a frozen dataclass with some fields changed and their new values validated; lists become tuples.

    Args:
        config: the dataclass with its present values.
        options: field name -> new value.
        what: how to call it in messages, for example `[train]`.

    Raises:
        ConfigError: an unknown field, or a value that its type or bounds do not allow.
    """
    known = [field.name for field in fields(config)]  # type: ignore[arg-type]
    for key in options:
        if key not in known:
            raise ConfigError(f"{what} has no option {key!r}", hint=f"Choose among: {', '.join(sorted(known))}")
    plain = {key: _plain(value) for key, value in options.items()}
    _refuse_misfits(type(config), plain, what)
    try:
        return replace(config, **plain)  # type: ignore[type-var]
    except ConfigError as error:  # what relates several settings, the dataclass itself checks
        told = error.what if error.what.startswith(what) else f"{what}: {error.what}"
        raise type(error)(told, path=error.path, hint=error.hint) from None


def check_width(width: int, heads: int) -> None:
    """Refuse channels that positions in pairs of sine and cosine, or the heads of an attention, cannot share.

    Raises:
        ConfigError: `width` is odd, or `heads` does not divide it.
    """
    if width % 2 or width % heads:
        raise ConfigError(f"width {width} is not even and divisible by {heads} heads")


def check_kernel(kernel: int | Mapping[str, int]) -> None:
    """Refuse convolutions without a middle.

    Raises:
        ConfigError: a kernel is even.
    """
    if any(one % 2 == 0 for one in ([kernel] if isinstance(kernel, int) else kernel.values())):
        raise ConfigError(f"kernel {kernel} is not odd")


def check(config: Any, what: str) -> None:
    """Validate all values of a dataclass.

    Args:
        config: the dataclass.
        what: how to call it in messages, for example `[train]`.

    Raises:
        ConfigError: a value that its type or bounds do not allow.
    """
    _refuse_misfits(type(config), {one.name: _plain(getattr(config, one.name)) for one in fields(config)}, what)


def _plain(value: Any) -> Any:
    """Turn a list, as TOML and JSON have them, into a tuple, as dataclasses have them."""
    return tuple(value) if isinstance(value, list) else value


def _refuse_misfits(kind: type, values: Mapping[str, Any], what: str) -> None:
    """Raise a ConfigError for the first value that its field does not allow. Values are judged, never converted."""
    from pydantic import ValidationError

    misfit = next((key for key, value in values.items() if not _finite(value)), None)
    if misfit is None:
        try:
            _adapter(kind).validate_python(dict(values))
        except ValidationError as error:
            misfit = str(error.errors()[0]["loc"][0])
    if misfit is not None:
        shown, mark = _shown(values[misfit]), "" if what.endswith("]") else ":"
        shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
        hint = f"Expected {_words(get_type_hints(kind, include_extras=True)[misfit])}"
        raise ConfigError(f"{what}{mark} {misfit} = {shown} does not fit", hint=hint)


def _shown(value: Any) -> str:
    """A value as messages show it; Python refuses to write whole numbers with thousands of digits."""
    try:
        return repr(value)
    except ValueError:
        return "a number with thousands of digits"


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    """Make what validates values of a dataclass by its fields' types and bounds, in pydantic's strict mode.

    A dataclass without pydantic's own configuration, as other packages bring it, cannot be validated strictly and from
    a table; a table with the same fields can.
    """
    from pydantic import ConfigDict, TypeAdapter
    from typing_extensions import TypedDict

    names = {field.name for field in fields(kind)}
    hints = {name: hint for name, hint in get_type_hints(kind, include_extras=True).items() if name in names}
    table = TypedDict(kind.__name__, hints, total=False)  # type: ignore[misc]
    table.__pydantic_config__ = ConfigDict(strict=True, arbitrary_types_allowed=True)  # type: ignore[attr-defined]
    return TypeAdapter(table)


def _finite(value: Any) -> bool:
    """Whether there is no NaN and no infinity in a value, at any depth."""
    if isinstance(value, Mapping):
        return all(_finite(one) for one in value.values())
    if isinstance(value, list | tuple):
        return all(_finite(one) for one in value)
    return not isinstance(value, float) or math.isfinite(value)


def _words(hint: Any) -> str:
    """Describe what a field's type and bounds allow."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _bounded(inside[0], inside[1:])
    if origin is Literal:
        return "one of " + ", ".join(repr(one) for one in inside)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(one) for one in inside))
    if isinstance(origin, type):
        collection, entry = ("a table", inside[1]) if issubclass(origin, Mapping) else ("a list", inside[0])
        return f"{collection}, each entry {_words(entry)}"
    if dataclasses.is_dataclass(hint):
        return "a table"
    return WORDS.get(hint, "a finite value" if hint is Any else str(getattr(hint, "__name__", hint)))


def _bounded(hint: Any, bounds: tuple[Any, ...]) -> str:
    """Describe a type with its bounds."""
    limits = {}
    for name in ("ge", "gt", "le", "lt", "min_length"):
        given = (getattr(one, name, None) for one in bounds)
        limits[name] = next((bound for bound in given if bound is not None), None)
    least, above, most, below, entries = limits.values()
    if entries:
        return f"{_words(hint)}, at least {entries} of them"
    if least is not None and least == most:
        return f"{least}"
    if least is not None and most is not None:
        return f"{_words(hint)} from {least} to {most}"
    names = (("at least", least), ("above", above), ("at most", most), ("below", below))
    return f"{_words(hint)} {' and '.join(f'{name} {bound}' for name, bound in names if bound is not None)}".strip()

"""Frozen dataclasses from TOML tables, with errors that name the option."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from emopipe.errors import ConfigError

C = TypeVar("C")
V = TypeVar("V", int, float)


def of_modality(setting: V | Mapping[str, V], modality: str) -> V:
    """What a setting, one for all modalities or one for each, says of a modality."""
    return setting[modality] if isinstance(setting, Mapping) else setting


def change(config: C, options: Mapping[str, Any], what: str) -> C:
    """A copy of a frozen dataclass with some fields changed; lists become tuples.

    Args:
        config: the dataclass with its present values.
        options: field name -> new value.
        what: how to call it in messages, for example `[train]`.

    Raises:
        ConfigError: an unknown field, or a value that its type does not allow.
    """
    known = [field.name for field in fields(config)]  # type: ignore[arg-type]
    hints = get_type_hints(type(config))
    for key, value in options.items():
        if key not in known:
            raise ConfigError(f"{what} has no option {key!r}", hint=f"Choose among: {', '.join(sorted(known))}")
        if not _fits(value, hints[key]):
            raise ConfigError(f"{what}: {key} = {value!r} does not fit", hint=f"Expected {_words(hints[key])}")
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return replace(config, **plain)  # type: ignore[type-var]


def _fits(value: Any, hint: Any) -> bool:
    origin, inside = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return value in inside
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inside)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(one, inside[0]) for one in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(_fits(one, inside[1]) for one in value.values())
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)


def _words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(one) for one in get_args(hint))
    return hint.__name__ if isinstance(hint, type) else str(hint)

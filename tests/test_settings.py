"""Every setting has bounds: a value is within them, or it is refused by name before any work begins."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
from annotated_types import Gt, Interval, MinLen
from hypothesis import given, settings
from hypothesis import strategies as st

from emopipe.constants import MODALITIES
from emopipe.errors import ConfigError
from emopipe.models.configs import change, check
from emopipe.models.registry import MODELS, configure
from emopipe.models.training.config import TrainConfig, configuration
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.studies.compare import configurations
from tests.conftest import ROOT

#: What to call it in messages -> every configuration that has settings.
CONFIGS: dict[str, Any] = {
    **{f"[{table.name}]": getattr(ExtractionConfig(), table.name) for table in dataclasses.fields(ExtractionConfig)},
    "[train]": TrainConfig(),
    **{f"model {name}": entry.preset for name, entry in MODELS.items()},
}
#: What slips of the pen look like.
SLIPS = (0, -1, math.nan, math.inf, -math.inf, 10**18, 1e300)


@dataclass(frozen=True)
class Number:
    """A number that a setting is, or holds.

    Attributes:
        what: to call the configuration in messages.
        config: the configuration.
        field: its name.
        path: how a value of the field holds the number: "itself", in a "list" or in a "table".
        kind: int or float.
        ranges: what it may be, as (least, greatest) of closed intervals; None where a bound is missing.
    """

    what: str
    config: Any
    field: str
    path: str
    kind: type
    ranges: tuple[tuple[float, float] | None, ...]

    def value(self, number: float) -> Any:
        """A value of the field."""
        return {"itself": number, "list": [number], "table": {"text": number}}[self.path]

    def allows(self, number: float) -> bool:
        """Whether the number is one that the bounds allow."""
        return any(one is None or one[0] <= number <= one[1] for one in self.ranges)

    def extremes(self) -> list[float]:
        """The least and the greatest number of every interval."""
        return sorted({bound for one in self.ranges if one is not None for bound in one})


def numbers(what: str, config: Any) -> Iterator[Number]:
    """Every number in the settings of a configuration."""
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        found: dict[tuple[str, type], list[tuple[float, float] | None]] = {}
        for path, kind, bounds in leaves(hint):
            found.setdefault((path, kind), []).append(closed(kind, bounds))
        for (path, kind), ranges in found.items():
            yield Number(what, config, name, path, kind, tuple(ranges))


def leaves(hint: Any, path: str = "itself") -> Iterator[tuple[str, type, tuple[Any, ...]]]:
    """How a type holds numbers, of which type, and with what bounds."""
    origin, inside = get_origin(hint), get_args(hint)
    if hint in (int, float):
        yield path, hint, ()
    elif origin is Annotated and inside[0] in (int, float):
        yield path, inside[0], inside[1:]
    elif origin is Annotated:
        yield from leaves(inside[0], path)
    elif origin is tuple:
        yield from leaves(inside[0], "list")
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield from leaves(inside[1], "table")
    elif origin is not None and origin is not Literal:
        for one in inside:
            yield from leaves(one, path)


def closed(kind: type, bounds: tuple[Any, ...]) -> tuple[float, float] | None:
    """The closed interval of numbers within bounds; None where one of two is missing."""
    (interval,) = bounds or (Interval(),)
    least, greatest = interval.ge, interval.le
    if kind is float:
        least = math.nextafter(interval.gt, math.inf) if interval.gt is not None else least
        greatest = math.nextafter(interval.lt, -math.inf) if interval.lt is not None else greatest
    return None if least is None or greatest is None else (least, greatest)


NUMBERS = [number for what, config in CONFIGS.items() for number in numbers(what, config)]
every_number = pytest.mark.parametrize("number", NUMBERS, ids=lambda one: f"{one.what} {one.field} {one.path}")


def obey(number: Number, tried: float) -> None:
    """See that a number is taken only within its bounds, and else refused by name."""
    try:
        changed = change(number.config, {number.field: number.value(tried)}, number.what)
    except ConfigError as error:
        assert number.what in error.what and number.field in error.what
        if "does not fit" in error.what:  # else it does not go together with other settings
            assert not number.allows(tried) or (number.kind is int and isinstance(tried, float))
        return
    assert math.isfinite(tried) and number.allows(tried)
    assert number.kind is float or isinstance(tried, int)
    value = number.value(tried)
    assert getattr(changed, number.field) == (tuple(value) if isinstance(value, list) else value)


def test_settings_of_all_kinds_are_found() -> None:
    names = {f"{one.what} {one.field} {one.path}" for one in NUMBERS}
    assert {
        "[face] rate itself",
        "[speech] temperatures list",
        "[train] seed itself",
        "model emoe kernel table",
        "model emoe kernel itself",
        "model emoe-paper bert table",
        "model egmf value_range list",
        "model lmf rank itself",
    } <= names
    assert len(names) > 150


@every_number
def test_a_number_has_a_lower_and_an_upper_bound(number: Number) -> None:
    assert None not in number.ranges
    assert max(abs(bound) for bound in number.extremes()) < 10**13


@every_number
def test_extremes_and_slips_of_the_pen_are_refused_by_name_or_within_bounds(number: Number) -> None:
    for tried in (*SLIPS, *number.extremes()):
        obey(number, tried)


@every_number
@settings(max_examples=25)
@given(tried=st.floats() | st.integers())
def test_any_number_is_refused_by_name_or_within_bounds(number: Number, tried: float) -> None:
    obey(number, tried)


@every_number
def test_what_is_not_a_number_is_refused(number: Number) -> None:
    for tried in (True, "1", None):
        with pytest.raises(ConfigError, match=number.field):
            change(number.config, {number.field: number.value(tried)}, number.what)


@pytest.mark.parametrize("what", CONFIGS)
def test_the_defaults_are_within_their_bounds(what: str) -> None:
    check(CONFIGS[what], what)


@pytest.mark.parametrize(
    ("tables", "what", "hint"),
    [
        ({"face": {"rate": 0}}, "[face] rate = 0 does not fit", "Expected a number from 0.001 to 1000"),
        ({"face": {"window": 0.001}}, "[face] window = 0.001 ", "Expected 0 or a number from 0.02 to 86400"),
        ({"speech": {"temperatures": []}}, "temperatures = () ", "at least 1 of them"),
        ({"face": {"max_faces": 2.0}}, "max_faces = 2.0 ", "Expected a whole number from 1 to 100"),
        ({"face": {"deviations": 1}}, "deviations = 1 ", "Expected true or false"),
        ({"face": {"features": "mesh"}}, "features = 'mesh' ", "Expected a list, each entry a text"),
        ({"people": {"enrol": {"anna": 3}}}, "enrol = {'anna': 3} ", "Expected a table, each entry a text"),
        ({"face": {"options": {"a": [math.nan]}}}, "options = {'a': [nan]} ", "a finite value"),
        ({"face": 3}, "the configuration: face = 3 ", "Expected a table"),
        ({"face": {"fps": 3}}, "[face] has no option 'fps'", "deviations, features, least_coverage"),
    ],
)
def test_messages_name_table_and_key_and_hints_what_is_allowed(tables: dict[str, Any], what: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ExtractionConfig.from_dict(tables)
    assert what in caught.value.what and hint in caught.value.hint


def test_choices_and_open_bounds_are_told() -> None:
    for options, hint in (
        ({"lr": 0}, "a number above 0 and at most 100"),
        ({"average": 1}, "a number at least 0 and below 1"),
        ({"select": "first"}, "one of 'best', 'last'"),
    ):
        with pytest.raises(ConfigError, match=hint):
            TrainConfig(**options)
    with pytest.raises(ConfigError, match=r"\{'text': 1.5\}.*a number at least 0 and below 1 or a table, each entry"):
        configure("emoe", {"input_dropout": {"text": 1.5}})


@dataclass(frozen=True)
class Foreign:
    """What another package may bring."""

    folder: Path = Path()
    rate: Annotated[float, Gt(0)] = 1.0
    names: Annotated[tuple[str, ...], MinLen(2)] = ("a", "b")


def test_dataclasses_of_other_packages_are_validated_too() -> None:
    assert change(Foreign(), {"rate": 2, "names": ["c", "d"]}, "model m") == Foreign(rate=2, names=("c", "d"))
    for options, words in (
        ({"rate": 0}, "model m: rate = 0 does not fit.*a number above 0"),
        ({"rate": math.inf}, "rate = inf"),
        ({"names": ["c"]}, "at least 2 of them"),
        ({"folder": "x"}, "Expected Path"),
        ({"x": 1}, "model m has no option 'x'.*folder, names, rate"),
    ):
        with pytest.raises(ConfigError, match=words):
            change(Foreign(), options, "model m")


def shipped() -> list[Path]:
    """Files with settings that come with the package."""
    recipes = [*(ROOT / "models" / "recipes").glob("*.toml"), *(ROOT / "benchmarks").glob("*.toml")]
    return [*sorted(recipes), *sorted((ROOT / "models" / "checkpoints").glob("*/config.json"))]


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.stem if path.suffix == ".toml" else path.parent.name)
def test_what_is_shipped_is_within_bounds(path: Path) -> None:
    if path.suffix == ".toml":
        tables = tomllib.loads(path.read_text("utf-8"))
        configuration({name: tables[name] for name in ("model", "train") if name in tables})
        configurations(list(tables.get("models", {})), tables, MODALITIES)
        return
    sealed = json.loads(path.read_text("utf-8"))
    assert configure(sealed["model"], sealed["options"]) is not None
    assert ExtractionConfig.from_dict(sealed["extraction"]) is not None
    assert configuration({"train": sealed["training"]["config"]}).lr == sealed["training"]["config"]["lr"]


@pytest.mark.parametrize("module", ["emopipe.pipeline.config", "emopipe.pipeline.cli.app", "emopipe.models.configs"])
def test_importing_settings_does_not_import_pydantic(module: str) -> None:
    code = f"import sys, {module}; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_values_stay_as_they_were_given() -> None:
    """A whole number for a fraction is not converted: keys of stored results and ids of checkpoints depend on it."""
    rates = [ExtractionConfig.from_dict({"face": {"rate": value}}).face.rate for value in (2, 2.0)]
    assert [type(rate) for rate in rates] == [int, float]

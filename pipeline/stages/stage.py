"""What a stage is: typed inputs and outputs, the settings that it may read, and a check that a plan is whole.

A stage's inputs are a class of annotations (:class:`Inputs`), its result is a frozen dataclass whose fields other
stages name in theirs. What a stage declares is what it can read: other values and other settings are refused when they
are asked for, so that a result cannot depend on what its key in the store does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from emopipe.constants import MODALITIES
from emopipe.errors import PlanError
from emopipe.pipeline.config import ExtractionConfig
from emopipe.pipeline.progress import Hook

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from emopipe.pipeline.backends.loading import Backends

I = TypeVar("I", bound="Inputs")  # noqa: E741
O = TypeVar("O", bound="DataclassInstance")  # noqa: E741


class Inputs:
    """The values that a stage reads. A subclass annotates them; each is looked up when it is read, and no other can be.

    Args:
        value: gives a value by its name.
    """

    def __init__(self, value: Callable[[str], object]) -> None:
        self._value = value

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            if name not in input_names(type(self)):
                raise AttributeError(f"{type(self).__name__} does not declare {name!r}")
            return self._value(name)


def input_names(inputs: type[Inputs]) -> tuple[str, ...]:
    """The names of the values that inputs declare."""
    return tuple(_annotations(inputs))


@dataclass(frozen=True)
class Context:
    """What a stage works with, beside its inputs.

    Attributes:
        settings: the extraction configuration; settings that the stage does not declare cannot be read.
        backends: loads extractors.
        hook: told of progress.
        beside_faces: faces are being measured at the same time: who reads their table waits for that.
    """

    settings: ExtractionConfig
    backends: Backends
    hook: Hook
    beside_faces: bool = False


@dataclass(frozen=True)
class Stage(Generic[I, O]):
    """A step from source to prediction.

    Attributes:
        name: as keys in the store have it, and as it is shown to people.
        version: raised whenever the stage's output changes.
        inputs: declares what it reads.
        output: declares what it provides. At most one field is tabular (see
            :mod:`emopipe.pipeline.store.serialization`); an iterator over utterances is stored as it goes.
        run: computes the output.
        settings: entries of the configuration ("face.rate") or of the job ("labelled") that the stage reads, or its
            backend.
        backend: the kind of backend that works for it; its weights and libraries decide the output, too.
        libraries: other distributions whose versions decide it.
        modalities: it does its work only when one of these is wanted.
        needed: told the configuration, and whether sources are labelled: whether there is any work for it.
        signals: it does its work only when one of these files is there; (): without files, too.
        stored: False for what is quicker made again than kept.
        quick: it takes no time worth telling: it is done whenever it is asked for, and never stored.
    """

    name: str
    version: int
    inputs: type[I]
    output: type[O]
    run: Callable[[I, Context], O]
    settings: tuple[str, ...] = ()
    backend: str = ""
    libraries: tuple[str, ...] = ()
    modalities: tuple[str, ...] = MODALITIES
    needed: Callable[[ExtractionConfig, bool], bool] = lambda config, labelled: True
    signals: tuple[str, ...] = ()
    stored: bool = True
    quick: bool = False

    @property
    def requires(self) -> tuple[str, ...]:
        """Names of the values that it reads."""
        return input_names(self.inputs)

    @property
    def provides(self) -> tuple[str, ...]:
        """Names of the values that it makes."""
        return tuple(field.name for field in fields(self.output))

    def compute(
        self,
        value: Callable[[str], object],
        config: ExtractionConfig,
        backends: Backends,
        hook: Hook,
        *,
        beside_faces: bool = False,
    ) -> dict[str, object]:
        """Run the stage; returns its values by name.

        Args:
            value: gives an input by its name.
            config: of which the stage sees what it declares.
            backends: loads extractors.
            hook: told of progress.
            beside_faces: see :class:`Context`.
        """
        settings = cast(ExtractionConfig, _DeclaredSettings(config, self.name, self.settings))
        made = self.run(self.inputs(value), Context(settings, backends, hook, beside_faces))
        return {name: getattr(made, name) for name in self.provides}


#: Entry of a job -> the setting that it stands for.
_STANDS_FOR = {"baseline_clip": "people.baseline"}


class _DeclaredSettings:
    """A configuration of which a stage sees the settings that it declares, and no others.

    Args:
        config: the configuration, or a table of it.
        stage: its name, for the error.
        declared: dotted names of settings.
        within: what comes before the names of this table.
    """

    def __init__(self, config: object, stage: str, declared: Sequence[str], within: str = "") -> None:
        self._config, self._stage, self._within = config, stage, within
        self._declared = [_STANDS_FOR.get(name, name) for name in declared]

    def __getattr__(self, name: str) -> object:
        whole = f"{self._within}{name}"
        if whole in self._declared:
            return getattr(self._config, name)
        if any(one.startswith(f"{whole}.") for one in self._declared):
            return _DeclaredSettings(getattr(self._config, name), self._stage, self._declared, f"{whole}.")
        raise PlanError(f"stage {self._stage} reads the setting {whole} without declaring it")


AnyStage = Stage[Any, Any]


#: Type of a stage's output that is written as it comes -> the type as which it is read back.
_READ_BACK = {"FeatureStream": "FeatureSequences"}


def check_plan(stages: Sequence[AnyStage], given: type[Inputs]) -> None:
    """Refuse a plan in which a stage reads what nobody before it provides, or reads it as another type.

    Args:
        stages: in the order in which they run.
        given: declares the values that are there from the beginning.

    Raises:
        PlanError: naming the stage and the value.
    """
    known = _annotations(given)
    for stage in stages:
        for name, wanted in _annotations(stage.inputs).items():
            if name not in known:
                raise PlanError(f"stage {stage.name!r} requires {name!r}, which no stage before it provides")
            if wanted != known[name]:
                raise PlanError(f"stage {stage.name!r} reads {name!r} as {wanted}, but it is {known[name]}")
        known |= {name: _READ_BACK.get(kind, kind) for name, kind in _annotations(stage.output).items()}


def _annotations(kind: type) -> dict[str, str]:
    """Name -> type of the annotations of a class, as written: some types are imported for type checkers alone."""
    return {
        name: text for base in reversed(kind.__mro__) for name, text in vars(base).get("__annotations__", {}).items()
    }

"""Option groups on the command line: the keywords of the front door as options of commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, get_args, get_type_hints, is_typeddict

import typer

from emopipe.options import (
    AnswerOptions,
    ExecutionOptions,
    ExtractionOptions,
    MachineOptions,
    ModalityOptions,
    Option,
    PrivacyOptions,
    StudyOptions,
    TrainingOptions,
)

#: Option group -> the heading under which a command's help shows it.
PANELS: Final[dict[Any, str]] = {
    ModalityOptions: "What is looked at",
    MachineOptions: "Machine",
    ExtractionOptions: "How it is measured",
    ExecutionOptions: "Work and store",
    PrivacyOptions: "Privacy",
    AnswerOptions: "Answers",
    TrainingOptions: "Training",
    StudyOptions: "Study",
}

F = TypeVar("F", bound=Callable[..., None])

DatasetPath = Annotated[Path, typer.Argument(help="A dataset made by `emopipe extract`.", show_default=False)]
Checkpoint = Annotated[str, typer.Argument(help="A checkpoint: its name or its folder.", show_default=False)]
Results = Annotated[
    Path, typer.Option(help="Folder for the results; repeated, the command goes on.", show_default=False)
]
RunResults = Annotated[Path, typer.Argument(help="Results of `emopipe run`.", show_default=False)]
StoreOfRun = Annotated[
    Path | None, typer.Option("--store", help="Folder in which the run kept what it measured.", show_default=False)
]
Pseudonyms = Annotated[
    Path | None,
    typer.Option(help="CSV with the columns name and pseudonym: names are replaced.", show_default=False),
]
Redact = Annotated[
    str | None, typer.Option(help="Comma-separated subset of names,numbers: left out of words.", show_default=False)
]
Participants = Annotated[
    Path | None,
    typer.Option(help="CSV with a column person or file, and columns of groups to compare.", show_default=False),
]
Prior = Annotated[str, typer.Option(help="uniform, or train: expect classes as often as in training.")]
Json = Annotated[bool, typer.Option("--json", help="JSON lines instead of tables and progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


def with_option_groups(command: F) -> F:
    """Show each parameter of a command that is an option group as the options of that group.

    The command is called with the group as a dictionary of what was given.
    """
    groups = {name: hint for name, hint in get_type_hints(command).items() if is_typeddict(hint)}
    signature = inspect.signature(command, eval_str=True)
    options = {name: _options(group) for name, group in groups.items()}

    @wraps(command)
    def flat(**values: Any) -> None:
        arguments = {name: values.pop(name) for name in signature.parameters if name in values and name not in groups}
        for name, members in options.items():
            arguments[name] = {key: values[key] for key in members if values[key] is not None}
        command(**arguments)

    parameters = [parameter for name, parameter in signature.parameters.items() if name not in groups]
    parameters += [member for members in options.values() for member in members.values()]
    keyword = inspect.Parameter.KEYWORD_ONLY
    flat.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[parameter.replace(kind=keyword) for parameter in parameters]
    )
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat  # type: ignore[return-value]


def _options(group: Any) -> Mapping[str, inspect.Parameter]:
    """Keyword of a group -> the parameter that Typer makes an option of."""
    members = {}
    for name, hint in get_type_hints(group, include_extras=True).items():
        kind, option = get_args(hint)[0], next(one for one in get_args(hint) if isinstance(one, Option))
        kind = option.type or kind
        flag = option.flag or "--" + name.replace("_", "-")
        panel = next(title for one, title in PANELS.items() if name in one.__annotations__)
        shown = typer.Option(
            flag,
            help=option.help.replace("[", "\\["),
            min=option.least,
            show_default=option.default not in (None, False),
            rich_help_panel=panel,
        )
        annotation = kind if option.default is not None else kind | None
        parameter = inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=option.default,
            annotation=Annotated[annotation, shown],
        )
        members[name] = parameter
    return members


Start = Annotated[
    str,
    typer.Option(
        help="Checkpoint to begin with, which brings the model and its options; classes may be others. "
        "auto: a shipped one that was trained on the same features; none: random weights."
    ),
]

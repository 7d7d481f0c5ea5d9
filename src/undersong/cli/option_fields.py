"""Typer parameters made from options dataclasses: a command takes the dataclass, and each field becomes an option."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, is_dataclass
from math import isfinite
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from undersong.options import Option, OptionField, OptionGroup, option_fields
from undersong.types import UndersongError

BOTH_CASES = "/"  # in a flag: --harmful/--benign
ALL_OPTIONS = OptionGroup()


@dataclass(frozen=True)
class CommandParameter:
    """One Typer parameter, and the field of an options dataclass that takes its value."""

    name: str
    path: tuple[str, ...]  # of field names, from the command's parameter inwards
    annotation: Any
    default: Any
    parse: Callable[[Any], Any]


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace every parameter of a command that is an options dataclass by one typer parameter for each field."""
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    expanded: dict[str, tuple[type, list[CommandParameter]]] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        options_class, group = _options_class(hints[name])
        if options_class is None:
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        command_parameters = list(command_parameters_of(options_class, group, (name,)))
        expanded[name] = options_class, command_parameters
        parameters += [_inspect_parameter(one) for one in command_parameters]

    def run(**values: Any) -> None:
        built = {
            name: build_options(options_class, values, command_parameters, (name,))
            for name, (options_class, command_parameters) in expanded.items()
        }
        command(**built, **{name: value for name, value in values.items() if name in hints and name not in expanded})

    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    ordered = sorted(parameters, key=lambda parameter: parameter.default is not inspect.Parameter.empty)
    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in ordered]
    run.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in keyword_only}
    return run


def command_parameters_of(
    options_class: type, group: OptionGroup = ALL_OPTIONS, path: tuple[str, ...] = ()
) -> Iterator[CommandParameter]:
    """List the typer parameters for the fields of an options dataclass, groups of options inside it included."""
    for option_field in option_fields(options_class):
        place = (*path, option_field.name)
        if option_field.group is not None:
            yield from command_parameters_of(option_field.type, option_field.group, place)
        elif option_field.option is not None and (not group.only or option_field.name in group.only):
            yield _command_parameter(option_field, option_field.option, place)


def build_options(
    options_class: type, values: Mapping[str, Any], parameters: Sequence[CommandParameter], path: tuple[str, ...]
) -> Any:
    """Build an options dataclass from the values that Typer parsed; an option that was not given keeps its default.

    Args:
        options_class: Dataclass to build. Fields that are groups of options are built recursively.
        values: Parsed values by parameter name; None for an option that was not given.
        parameters: Parameters of the command, each with the path of its field.
        path: Field names that lead from the outermost dataclass to this one; empty for the outermost.

    Raises:
        UndersongError: A number is infinite or not a number, which no option can use.
    """
    arguments: dict[str, Any] = {}
    for option_field in option_fields(options_class):
        place = (*path, option_field.name)
        if option_field.group is not None:
            inner = [parameter for parameter in parameters if parameter.path[: len(place)] == place]
            arguments[option_field.name] = build_options(option_field.type, values, inner, place)
        for parameter in parameters:
            if parameter.path == place and values[parameter.name] is not None:
                arguments[option_field.name] = parameter.parse(values[parameter.name])
                _check_finite(parameter.name, arguments[option_field.name])
    return options_class(**arguments)


def _command_parameter(option_field: OptionField, option: Option, path: tuple[str, ...]) -> CommandParameter:
    value_type, repeatable, optional = _command_line_type(option_field, option)
    default = option_field.default
    if option.required or default is MISSING:
        default = inspect.Parameter.empty
    elif repeatable:
        default = None  # the dataclass has the default
    command_type = list[value_type] if repeatable else value_type  # type: ignore[valid-type]
    if default is None or (optional and default is not inspect.Parameter.empty):
        command_type = command_type | None
    if option.argument:
        info = typer.Argument(help=option.help, metavar=option.metavar)
        name = option_field.name
    else:
        flag = option.flag or f"--{option_field.name.replace('_', '-')}"
        name = flag.partition(BOTH_CASES)[0].removeprefix("--").replace("-", "_")
        info = typer.Option(flag, help=option.help, metavar=option.metavar, min=option.min, max=option.max)
    parse = option.parse or (tuple if repeatable else _unchanged)
    return CommandParameter(name, path, Annotated[command_type, info], default, parse)


def _command_line_type(option_field: OptionField, option: Option) -> tuple[Any, bool, bool]:
    """Return the type of one word (the first of a union), whether the option repeats, and whether it is optional."""
    choices = _union_members(option_field.type)
    optional = NoneType in choices
    choices = [choice for choice in choices if choice is not NoneType]
    if option.parse is not None:
        return str, True, optional
    repeated = [choice for choice in choices if get_origin(choice) is tuple]
    if repeated:
        return get_args(repeated[0])[0], True, optional
    return choices[0], False, optional


def _union_members(annotation: Any) -> list[Any]:
    return list(get_args(annotation)) if isinstance(annotation, UnionType) else [annotation]


def _options_class(annotation: Any) -> tuple[type | None, OptionGroup]:
    """The options dataclass that a parameter is annotated with, if any, and which of its fields are offered."""
    group = ALL_OPTIONS
    if get_origin(annotation) is Annotated:
        annotation, *extras = get_args(annotation)
        group = next((extra for extra in extras if isinstance(extra, OptionGroup)), group)
    return (annotation if isinstance(annotation, type) and is_dataclass(annotation) else None), group


def _inspect_parameter(parameter: CommandParameter) -> inspect.Parameter:
    return inspect.Parameter(
        parameter.name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=parameter.default,
        annotation=parameter.annotation,
    )


def _check_finite(name: str, value: Any) -> None:
    if isinstance(value, float) and not isfinite(value):
        raise UndersongError(f"--{name.replace('_', '-')} is {value:g}; give a finite number.")


def _unchanged(value: Any) -> Any:
    return value

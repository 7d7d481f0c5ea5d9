"""Options of a command, declared once: the fields of a dataclass are its command-line options, its Python keywords and
its part of the cache key.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from undersong.suggestions import did_you_mean
from undersong.types import UndersongError

P = ParamSpec("P")
OptionsT = TypeVar("OptionsT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Option:
    """How the command line offers a field: `field: Annotated[int, Option("Samples per step.", min=1)] = 8`.

    Args:
        help: Text for `--help`.
        flag: Words on the command line, such as `--save-step` or `--harmful/--benign`. None: the field's name.
        argument: True for a positional argument.
        metavar: Placeholder for the value. A field with `parse` needs one.
        min: Smallest number allowed.
        max: Largest number allowed.
        parse: Turns the words of a repeatable option into the field's value.
        required: True where the command line needs a value that Python does not.
    """

    help: str
    flag: str | None = None
    argument: bool = False
    metavar: str | None = None
    min: float | None = None
    max: float | None = None
    parse: Callable[[Sequence[str]], Any] | None = None
    required: bool = False


@dataclass(frozen=True, slots=True)
class OptionGroup:
    """A field that is an options dataclass itself: its options are offered among the others.

    Args:
        only: Names of the fields to offer. Empty: all of them.
    """

    only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OptionField:
    """One field of an options dataclass with its resolved type; `option` is None for a field of Python alone."""

    name: str
    type: Any
    default: Any  # dataclasses.MISSING where there is none
    keyword_only: bool
    option: Option | None = None
    group: OptionGroup | None = None


def option_fields(options_class: type) -> list[OptionField]:
    """List the fields of an options dataclass in the order of its constructor."""
    hints = get_type_hints(options_class, include_extras=True)
    described = [_option_field(field, hints[field.name]) for field in fields(options_class)]
    return sorted(described, key=lambda field: field.keyword_only)  # stable, as dataclasses order them


def _option_field(field: Field[Any], hint: Any) -> OptionField:
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    if get_origin(hint) is not Annotated:
        return OptionField(field.name, hint, default, bool(field.kw_only))
    value_type, *extras = get_args(hint)
    option = next((extra for extra in extras if isinstance(extra, Option)), None)
    group = next((extra for extra in extras if isinstance(extra, OptionGroup)), None)
    return OptionField(field.name, value_type, default, bool(field.kw_only), option, group)


def key_values(options: Any, *excluded: Iterable[str], **replaced: Any) -> dict[str, Any]:
    """The part of a cache key that an options dataclass gives: every field that is not excluded.

    Args:
        options: Instance of an options dataclass. A value with a `cache_key` is represented by it.
        *excluded: Lists of field names that are left out, such as those that cannot change a result.
        **replaced: Values by field name that stand in for the field's own.

    Raises:
        KeyError: A name that is no field.
    """
    names = [field.name for field in fields(options)]
    left_out = {name for names in excluded for name in names}
    if unknown := (left_out | replaced.keys()) - set(names):
        raise KeyError(f"{type(options).__name__} has no field {', '.join(sorted(unknown))}")
    return {
        name: replaced[name] if name in replaced else _key_value(getattr(options, name))
        for name in names
        if name not in left_out
    }


def _key_value(value: Any) -> Any:
    if hasattr(value, "cache_key"):
        return value.cache_key
    if isinstance(value, Mapping):
        return {name: _key_value(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_key_value(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def python_signature(options_class: type) -> inspect.Signature:
    """The signature of a function that takes the fields of an options dataclass as arguments."""
    return inspect.Signature(list(_python_parameters(options_class)))


def _python_parameters(options_class: type) -> Iterator[inspect.Parameter]:
    for field in option_fields(options_class):
        kind = inspect.Parameter.KEYWORD_ONLY if field.keyword_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield inspect.Parameter(field.name, kind, default=default, annotation=field.type)


def takes_options(
    options_class: Callable[P, OptionsT],
) -> Callable[[Callable[[OptionsT], ResultT]], Callable[P, ResultT]]:
    """Make a function of one options dataclass a function of its fields, with a signature that tools can read.

    Args:
        options_class: The dataclass that the function takes.

    Raises:
        UndersongError: A keyword that is no field, when the function is called.
    """
    assert isinstance(options_class, type)
    signature = python_signature(options_class)

    def decorate(function: Callable[[OptionsT], ResultT]) -> Callable[P, ResultT]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> ResultT:
            if unknown := [name for name in kwargs if name not in signature.parameters]:
                names = list(signature.parameters)
                hint = did_you_mean(unknown[0], names) or f"; there are {', '.join(names)}."
                raise UndersongError(f"{function.__name__}() has no option {unknown[0]!r}{hint}")
            return function(options_class(*args, **kwargs))

        result = function.__annotations__.get("return", inspect.Signature.empty)
        call.__signature__ = signature.replace(return_annotation=result)  # type: ignore[attr-defined]
        return call

    return decorate

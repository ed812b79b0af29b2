"""Options as frozen dataclasses, read from the command line and from dicts.

Each module declares its options as a frozen dataclass of `option(...)` fields. A field's name
determines the flag, its annotation the type, and its default the default value.
"""

import argparse
import dataclasses
import math
import operator
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeVar

from .errors import InputError

T = TypeVar("T")
LISTED_CHOICES = 4  # longer lists would push the help text out of view


class Options:
    """Base class of options that are checked and converted at construction.

    A str is converted to Path, a list to tuple and an int to float if the field's annotation
    requires it; choices are case-insensitive. Raises InputError for a value of any other type and
    for a value that is not among the choices. given: the names of the fields passed to the
    constructor, including those set to their default.
    """

    given: frozenset[str]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        options = super().__new__(cls)
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        given = frozenset(names[: len(args)]) | kwargs.keys()
        object.__setattr__(options, "given", given)  # a subclass is frozen
        return options

    def __post_init__(self) -> None:
        for name, value in convert_values(type(self), vars(self)).items():
            object.__setattr__(self, name, value)


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    bare: str | None = None,
) -> Any:
    """Declare a dataclass field with a help text and its allowed values.

    choices: the allowed values of a string. above, at_least, at_most: bounds of a finite number,
    which `check_bounds` enforces. bare: the value used if the flag is given without a value or if
    the field is True; False selects the default. If `bare` is None, the flag requires a value.
    """
    bounds = {"above": above, "at_least": at_least, "at_most": at_most}
    bounds = {name: bound for name, bound in bounds.items() if bound is not None}
    metadata = {"help": help, "choices": choices, "bounds": bounds, "bare": bare}
    return dataclasses.field(default=default, metadata=metadata)


def option_names(cls: type) -> list[str]:
    """Return the names of the options that the dataclass `cls` declares."""
    return [field.name for field in dataclasses.fields(cls)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'NAME'?" with the most similar known name, or an empty string."""
    close = get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def flag_of(name: str) -> str:
    """Return the command-line flag of the option `name`."""
    return f"--{name.replace('_', '-')}"


def _value_type(annotation: Any) -> Any:
    """Return the type of one command-line value: int for `int | None` and `tuple[int, ...]`."""
    if isinstance(annotation, types.UnionType):
        return next(part for part in typing.get_args(annotation) if part is not type(None))
    return typing.get_args(annotation)[0] if _is_tuple(annotation) else annotation


def _is_tuple(annotation: Any) -> bool:
    return typing.get_origin(annotation) is tuple


def add_options(
    parser: argparse.ArgumentParser,
    cls: type,
    title: str,
    without: Collection[str] = (),
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Add one flag per `option(...)` field of the dataclass `cls`, in a help group.

    title: title of the group, to which "[default]" is added. without: names of fields that get no
    flag and keep their defaults. defaults: default values to show in the help instead of those of
    the fields. The flag of a bool also has a negation, --no-NAME. The flag of a tuple may be
    repeated. It accepts several values at once only if the parser has no positional arguments,
    which the flag would consume.
    """
    nargs = "+" if all(action.option_strings for action in parser._actions) else 1
    group = parser.add_argument_group(f"{title} [default]")
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if "help" in field.metadata and field.name not in without:
            shown = defaults.get(field.name, field.default)
            _add_flag(group, field, hints[field.name], nargs, shown)


def _add_flag(
    group: argparse._ArgumentGroup,
    field: "dataclasses.Field[Any]",
    hint: Any,
    nargs: str | int,
    default_shown: Any,
) -> None:
    flag = flag_of(field.name)
    text, choices = field.metadata["help"], field.metadata["choices"] or ()
    kind, default = _value_type(hint), typing.cast(Any, field.default)
    if kind is bool:
        action = argparse.BooleanOptionalAction if default else "store_true"
        group.add_argument(flag, action=action, default=default, help=text)
        if not default:  # turns off an option that a file turns on
            negation = flag.replace("--", "--no-", 1)
            group.add_argument(
                negation, dest=field.name, action="store_false", help=argparse.SUPPRESS
            )
        return
    if default_shown is not None:
        if default is None:  # the text states what None means, which is not the default here
            text = re.sub(r" \[[^]]*\]$", "", text)
        shown = (" ".join(map(str, default_shown)) or "none") if _is_tuple(hint) else default_shown
        text += f" [{shown}]".replace("%", "%%")
    arguments: dict[str, Any] = {"default": default}
    if _is_tuple(hint):  # "extend" would add given values to a default instead of replacing it
        absent = None if default is None else argparse.SUPPRESS
        arguments = {"default": absent, "action": "extend", "nargs": nargs}
    if bare := field.metadata.get("bare"):
        arguments |= {"nargs": "?", "const": bare}
    group.add_argument(
        flag,
        type=str.lower if choices else kind,  # choices are case-insensitive
        **arguments,
        choices=choices or None,
        metavar=None if 0 < len(choices) <= LISTED_CHOICES else kind.__name__.upper(),
        help=text,
    )


def from_arguments(cls: type[T], arguments: argparse.Namespace) -> T:
    """Build the dataclass `cls` from the parsed values of the flags added by `add_options`."""
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    values = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def from_named(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build the dataclass `cls` from the values of its fields; ignore all other values."""
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    return cls(**{name: values[name] for name in names if name in values})


def to_dict(options: Any) -> dict[str, Any]:
    """Convert options to a dict for JSON; values that are paths become strings."""
    return {
        key: str(value) if isinstance(value, Path) else value
        for key, value in dataclasses.asdict(options).items()
    }


def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build the dataclass `cls` from a dict; raise InputError for unknown names or wrong types."""
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(
            f"unknown option{'s' * (len(unknown) > 1)} {', '.join(map(repr, unknown))} for "
            f"{cls.__name__}; "
            f"the options are {', '.join(sorted(known))}{did_you_mean(unknown[0], known)}"
        )
    for name, annotation in typing.get_type_hints(cls).items():
        if name in values and not _accepts(annotation, values[name]):
            expected = getattr(annotation, "__name__", annotation)
            raise InputError(f"{name} must be of type {expected}, got {values[name]!r}")
    return cls(**values)


def convert_values(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the values of fields of the dataclass `cls` as `Options` does; omit all other values.

    Raises InputError for a value of the wrong type or one that is not among the choices.
    """
    hints = typing.get_type_hints(cls)
    fields = [field for field in dataclasses.fields(cls) if field.name in values]
    return {field.name: _convert(field, hints[field.name], values[field.name]) for field in fields}


def _convert(field: "dataclasses.Field[Any]", hint: Any, value: Any) -> Any:
    if value is field.default:  # such as None for a field whose flag is required
        return value
    kind = _value_type(hint)
    if callable(value) and _accepts(hint, value):
        return value
    if _is_tuple(hint):
        if not isinstance(value, list | tuple):
            advice = f"; write [{value!r}]" if isinstance(value, str) else ""
            raise InputError(
                f"{field.name} must be a list of {_shown(kind)}, got {value!r}{advice}"
            )
        return tuple(_convert_one(field, kind, each) for each in value)
    return None if value is None and _accepts(hint, None) else _convert_one(field, kind, value)


def _convert_one(field: "dataclasses.Field[Any]", kind: Any, value: Any) -> Any:
    if isinstance(value, bool) and field.metadata.get("bare"):
        value = field.metadata["bare"] if value else field.default
    if not _accepts(kind, value):
        raise InputError(f"{field.name} must be {_shown(kind)}, got {value!r}")
    if choices := field.metadata.get("choices"):
        if value.lower() not in choices:
            raise InputError(f"{field.name} must be one of {', '.join(choices)}, got {value!r}")
        return value.lower()
    return kind(value) if kind in (float, Path) else value


def _shown(kind: type) -> str:
    return "str" if kind is Path else kind.__name__


def _accepts(annotation: Any, value: Any) -> bool:
    """Return whether a value fits a type: an int fits float, a str fits Path, a bool only bool."""
    if isinstance(annotation, types.UnionType):
        return any(_accepts(part, value) for part in typing.get_args(annotation))
    if isinstance(value, bool):
        return annotation is bool
    if typing.get_origin(annotation) is Callable:
        return callable(value)
    return isinstance(value, {float: (int, float), Path: (str, Path)}.get(annotation, annotation))


def check_bounds(options: Any) -> None:
    """Raise InputError for the first field that is out of bounds, infinite or NaN; accept None."""
    for field in dataclasses.fields(options):
        bounds, value = field.metadata.get("bounds"), getattr(options, field.name)
        if not bounds or value is None:
            continue
        low, high = bounds.get("at_least", -math.inf), bounds.get("at_most", math.inf)
        if not (low <= value <= high and bounds.get("above", -math.inf) < value < math.inf):
            stated = [f"{name.replace('_', ' ')} {bounds[name]}" for name in bounds]
            if "at_most" not in bounds and not abs(value) < math.inf:  # NaN is not
                stated.insert(0, "finite")
            raise InputError(f"{field.name} must be {' and '.join(stated)}, got {value}")


def at_least_one(value: Any, name: str) -> int:
    """Return a number as an int; raise InputError if it is not an integer of at least 1."""
    try:
        count = operator.index(value)
    except TypeError as error:
        raise InputError(f"{name} must be an integer, got {value!r}") from error
    if count < 1:
        raise InputError(f"{name} must be at least 1, got {count}")
    return count


def check_at_least(options: Any, minimum: float, *names: str) -> None:
    """Raise InputError for the first named field below `minimum`, infinite or NaN; accept None."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not minimum <= value < math.inf:
            finite = "" if math.isfinite(value) else "finite and "
            raise InputError(f"{name} must be {finite}at least {minimum}, got {value}")


def check_share(options: Any, *names: str) -> None:
    """Raise InputError for the first named field outside [0, 1)."""
    for name in names:
        value = getattr(options, name)
        if not 0 <= value < 1:
            raise InputError(f"{name} must be at least 0 and below 1, got {value}")

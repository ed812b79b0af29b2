"""Frozen dataclasses <-> command line <-> plain dict; nothing else.

Each module declares the options it uses as a frozen dataclass of `option(...)` fields; the field's
name is the flag, its annotation the type, its default the default.
"""

import argparse
import dataclasses
import math
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .errors import InputError

T = TypeVar("T")
FEW = 4  # choices, that the help can list before it says what they are for


def option(default: Any, help: str, *, choices: Sequence[str] | None = None) -> Any:
    """A dataclass field that knows its help text and, for words, the ones allowed."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


def _value_type(annotation: Any) -> Any:
    """`int | None` or `tuple[int, ...]` -> int: what one value on the command line is read as."""
    if isinstance(annotation, types.UnionType):
        return next(part for part in typing.get_args(annotation) if part is not type(None))
    return typing.get_args(annotation)[0] if _is_tuple(annotation) else annotation


def _is_tuple(annotation: Any) -> bool:
    return typing.get_origin(annotation) is tuple


def add_options(
    parser: argparse.ArgumentParser, cls: type, title: str, without: Collection[str] = ()
) -> None:
    """Add one flag per field of the dataclass `cls`, in a help group called `title`.

    without: names of fields that get no flag and keep their defaults. A tuple's flag may come
    again, and takes several values at once where it cannot swallow positional arguments by that.
    """
    at_once = "+" if all(action.option_strings for action in parser._actions) else 1
    group = parser.add_argument_group(f"{title} [default]")
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if "help" not in field.metadata or field.name in without:
            continue
        flag = "--" + field.name.replace("_", "-")
        text = field.metadata["help"]
        kind, choices = _value_type(hints[field.name]), field.metadata["choices"] or ()
        if kind is bool:
            action = argparse.BooleanOptionalAction if field.default else "store_true"
            group.add_argument(flag, action=action, default=field.default, help=text)
            continue
        several, default = _is_tuple(hints[field.name]), typing.cast(Any, field.default)
        if default is not None:
            shown = " ".join(map(str, default)) if several else default
            text += f" [{shown}]".replace("%", "%%")
        taken: dict[str, Any] = {"default": default}
        if several:  # what is given takes the place of a default, to which "extend" would add it
            absent = None if default is None else argparse.SUPPRESS
            taken = {"default": absent, "action": "extend", "nargs": at_once}
        group.add_argument(
            flag,
            type=str.lower if choices else kind,  # words to choose from are read in any case
            **taken,
            choices=choices or None,
            metavar=None if 0 < len(choices) <= FEW else kind.__name__.upper(),
            help=text,
        )


def from_arguments(cls: type[T], arguments: argparse.Namespace) -> T:
    """The dataclass `cls` from the parsed flags that `add_options` added for it."""
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    values = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def given_flags(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> set[str]:
    """Names of the options that are on the command line, whatever their value."""
    parser.set_defaults(**dict.fromkeys(vars(parser.parse_args([])), None))
    return {name for name, value in vars(parser.parse_args(argv)).items() if value is not None}


def to_dict(options: Any) -> dict[str, Any]:
    """A dict that JSON can hold; paths become strings."""
    return {
        key: str(value) if isinstance(value, Path) else value
        for key, value in dataclasses.asdict(options).items()
    }


def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
    """The dataclass `cls` from a plain dict; unknown names and types raise InputError."""
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(
            f"unknown option {', '.join(map(repr, unknown))} for {cls.__name__}; "
            f"it has {', '.join(sorted(known))}"
        )
    for name, annotation in typing.get_type_hints(cls).items():
        if name in values and not _is_of(annotation, values[name]):
            wanted = getattr(annotation, "__name__", annotation)
            raise InputError(f"{name} must be {wanted}, got {values[name]!r}")
    return cls(**values)


def _is_of(annotation: Any, value: Any) -> bool:
    """Whether a value may stand for an annotation: a whole number for a float, a str for a Path."""
    if isinstance(annotation, types.UnionType):
        return any(_is_of(part, value) for part in typing.get_args(annotation))
    if isinstance(value, bool):
        return annotation is bool
    return isinstance(value, {float: (int, float), Path: (str, Path)}.get(annotation, annotation))


def check_at_least(options: Any, minimum: float, *names: str) -> None:
    """Raise InputError for the first named field below `minimum` or infinite; None passes."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not minimum <= value < math.inf:
            raise InputError(f"{name} must be at least {minimum}, got {value}")


def check_share(options: Any, *names: str) -> None:
    """Raise InputError for the first named field outside [0, 1)."""
    for name in names:
        value = getattr(options, name)
        if not 0 <= value < 1:
            raise InputError(f"{name} must be at least 0 and below 1, got {value}")

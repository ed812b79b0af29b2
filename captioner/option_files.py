"""Reading the options of a command from TOML files, whose keys are names of flags.

    attention = true
    [training]
    learning-rate = 1e-3

A key may appear at the top level or in the table of its option group.
"""

import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from .errors import InputError
from .git_lfs import refuse_pointer_file
from .options import convert_values, did_you_mean, from_named


def read_option_file(
    path: Path, groups: Mapping[str, type], overrides: dict[str, Any]
) -> dict[str, Any]:
    """Read a TOML file and return its options; the parameters are those of `parse_options`."""
    return parse_options(read_toml(path), path, groups, overrides)


def parse_options(
    content: Mapping[str, Any], path: Path, groups: Mapping[str, type], overrides: dict[str, Any]
) -> dict[str, Any]:
    """Return the options in a parsed TOML file by name; `overrides` replace their values.

    groups: dataclasses of `option(...)` fields, keyed by table name; values are converted to the
    types of the fields. Raises InputError, naming the file and the key, for an unknown option or
    table, an option in the wrong table, a duplicate option or a value of the wrong type. Raises
    InputError for values that a group rejects, naming the file if they come from it.
    """
    in_file = _read_options(content, path, groups)
    for group in groups.values():
        try:
            from_named(group, in_file | overrides)
        except InputError as error:
            if _rejection(group, in_file) == str(error):
                raise InputError(f"{path}: {error}") from error
            raise
    return in_file | overrides


def _rejection(group: type, values: Mapping[str, Any]) -> str | None:
    """Return the error message for invalid values of a group; None for valid values."""
    try:
        from_named(group, values)
    except InputError as error:
        return str(error)
    return None


def _read_options(
    content: Mapping[str, Any], path: Path, groups: Mapping[str, type]
) -> dict[str, Any]:
    """Return the options by name, converted to the types of their fields."""
    tables = {field.name: name for name, group in groups.items() for field in fields(group)}
    values: dict[str, Any] = {}
    for table, key, value in _entries(content, path, groups, tables):
        name = key.replace("-", "_")
        if name not in tables:
            raise InputError(f"{path}: unknown option {key!r}{_advice(name, value, tables)}")
        if table not in (None, tables[name]):
            raise InputError(f"{path}: {key} belongs in table [{tables[name]}], not in [{table}]")
        if name in values:
            raise InputError(f"{path}: {key} is given twice; remove one")
        try:
            values |= convert_values(groups[tables[name]], {name: value})
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    return values


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file; raise InputError if it cannot be read or parsed."""
    refuse_pointer_file(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise InputError(f"{path} is not a valid TOML file: {error}") from error


def _entries(
    content: Mapping[str, Any], path: Path, groups: Mapping[str, type], options: Collection[str]
) -> Iterator[tuple[str | None, str, Any]]:
    """Yield the table (None at the top level), key and value of each option."""
    known = ", ".join(f"[{name}]" for name in groups)
    for key, value in content.items():
        is_option = key.replace("-", "_") in options
        is_array = isinstance(value, list) and any(isinstance(each, dict) for each in value)
        if key in groups and isinstance(value, dict):
            yield from ((key, *item) for item in value.items())
        elif key in groups and (is_array or not is_option):
            raise InputError(f"{path}: {key} must be one table; write [{key}] above its options")
        elif not isinstance(value, dict):
            yield None, key, value
        elif is_option:
            raise InputError(
                f"{path}: {key} is an option, not a table; write {key} = VALUE (tables: {known})"
            )
        else:
            raise InputError(f"{path}: unknown table [{key}]; the tables are {known}")


def _advice(name: str, value: Any, known: Mapping[str, str]) -> str:
    positive = name.removeprefix("no_")
    if positive != name and positive in known and isinstance(value, bool):
        return f"; write {positive} = {str(not value).lower()}"
    return did_you_mean(name, known) or "; correct its name or remove it"

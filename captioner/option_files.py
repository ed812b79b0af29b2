"""Options from TOML files, whose keys are the flags of a command.

    attention = true
    [training]
    learning-rate = 1e-3

A key may appear at the top level or in the table of its option group.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .errors import InputError
from .options import convert_values


def read_option_file(path: Path, groups: Mapping[str, type]) -> dict[str, Any]:
    """Return the options of a TOML file by name, converted to the types of their fields.

    groups: dataclasses of `option(...)` fields, keyed by table name. Raises InputError,
    naming the file and the key, for an unknown option or table, an option in the wrong table, a
    duplicate option and a value of the wrong type.
    """
    tables = {field.name: name for name, group in groups.items() for field in fields(group)}
    values: dict[str, Any] = {}
    for table, key, value in _entries(_read(path), path, groups):
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


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise InputError(f"{path} is not a valid TOML file: {error}") from error


def _entries(
    content: Mapping[str, Any], path: Path, groups: Mapping[str, type]
) -> Iterator[tuple[str | None, str, Any]]:
    """Yield the table (None at the top level), key and value of each option."""
    for key, value in content.items():
        if not isinstance(value, dict):
            yield None, key, value
        elif key in groups:
            yield from ((key, *item) for item in value.items())
        else:
            known = ", ".join(f"[{name}]" for name in groups)
            raise InputError(f"{path}: unknown table [{key}]; the tables are {known}")


def _advice(name: str, value: Any, known: Mapping[str, str]) -> str:
    positive = name.removeprefix("no_")
    if positive != name and positive in known and isinstance(value, bool):
        return f"; write {positive} = {str(not value).lower()}"
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""

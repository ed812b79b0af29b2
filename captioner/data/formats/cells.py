"""Checks of cells and lines, which may contain more or less than one caption.

All readers of data sets and of caption files share these checks.
"""

import ast
import json
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from ..discovery import is_image_name

_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_STRINGS = re.compile(_STRING, re.DOTALL)
# A list or set of strings as printed by Python and PostgreSQL, with commas, or by numpy, without.
_LIST = re.compile(rf"[\[({{]\s*{_STRING}(?:[\s,]+{_STRING})*[\s,]*[\])}}]", re.DOTALL)
# What `repr` of a numpy array, and numpy for a list in an array, print around the brackets.
_CALL = re.compile(r"(?:np\.|numpy\.)?(?:array|list)\((.*?)(?:,\s*dtype=[^\s()]+)?\)", re.DOTALL)
# A list that cannot be parsed: complete, or cut off after its first item.
_BROKEN_LIST = re.compile(
    rf"""(?:array\(|list\()?\[\s*(?:['"{{].*\]\)?|{_STRING}\s*,\s*['"].*)""", re.DOTALL
)
_SEPARATORS = ("|", "\n", "\t", "<br>", "<sep>", "###", ";")  # of captions in one cell


def split_caption(value: Any) -> list[Any]:
    """Return the captions in one value: the items of a list, or the value itself.

    A list may also be written as text, as pandas and `str` write it to CSV files: in JSON, or in
    the notation of Python, NumPy or PostgreSQL. An object, alone or in a list, is replaced by
    its value for the key `raw`, `caption` or `text`.
    """
    if isinstance(value, str):
        value = _parse_list(value)
    if not isinstance(value, list):
        return [_caption_of(value)]
    items = [_parse_list(item) if isinstance(item, str) else item for item in value]
    lists = [item if isinstance(item, list) else [item] for item in items]
    return [_caption_of(item) for each in lists for item in each]


def _caption_of(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return next((value[key] for key in ("raw", "caption", "text") if key in value), value)


def _parse_list(text: str) -> Any:
    """Return the list that the text represents, or the text itself."""
    stripped = text.strip()
    if call := _CALL.fullmatch(stripped):
        stripped = call[1].strip()
    if not stripped.startswith(("[", "(", "{")):
        return text
    try:
        found = json.loads(stripped)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, list) and all(isinstance(item, str | dict) for item in found):
        return found
    if not _LIST.fullmatch(stripped):
        return text
    try:
        return [ast.literal_eval(item) for item in _STRINGS.findall(stripped)]
    except (ValueError, SyntaxError):
        return text


def list_problem(caption: object) -> str | None:
    """Return what is wrong with a caption that looks like a list but was not parsed, or None."""
    if not isinstance(caption, str) or not _BROKEN_LIST.fullmatch(caption.strip()):
        return None
    return "is a list that cannot be parsed"


def contains_rows(row: Sequence[str], delimiter: str, columns: int) -> bool:
    """Return whether a quoted cell of a table contains further rows of the table.

    Each line of a cell except the first is split at the delimiter. Such a line counts as a row if
    it has several values, one of them an image name, or if it has one value per column and an
    integer in a column in which `row` has one, too.
    """
    for cell in row:
        for line in cell.split("\n")[1:]:
            cells = [part.strip(' \r"') for part in line.split(delimiter)]
            if len(cells) > 1 and any(map(is_image_name, cells)):
                return True
            if len(cells) == columns and any(
                mine.strip().isdecimal() and other.isdecimal()
                for mine, other in zip(row, cells, strict=False)
            ):
                return True
    return False


def lines_notes(texts: Iterable[Sequence[str]]) -> list[str]:
    """Return a note if text files with one caption per line seem to contain wrapped sentences.

    texts: the lines of each file. A line continues a sentence if it begins in lower case in a text
    that begins in upper case, and the line before has no final punctuation.
    """
    several = [lines for lines in texts if len(lines) > 1]
    wrapped = sum(map(_is_wrapped, several))
    if not wrapped or 2 * wrapped < len(several):
        return []
    return [
        f"in {wrapped:,} of {len(several):,} text files with several lines, a sentence seems to "
        "continue on the next line, but each line is read as a caption; write each caption on one "
        "line"
    ]


def _is_wrapped(lines: Sequence[str]) -> bool:
    return lines[0][:1].isupper() and any(
        line[:1].islower() and previous.rstrip()[-1:] not in (".", "!", "?")
        for previous, line in pairwise(lines)
    )


def separator_notes(captions: Sequence[object]) -> list[str]:
    """Return a note if most captions contain a separator, which may join several captions."""
    texts = [caption.strip() for caption in captions if isinstance(caption, str)]
    for separator in _SEPARATORS:
        count = sum(separator in text for text in texts)
        if 2 * count > len(texts):
            return [
                f"{count:,} of {len(texts):,} captions contain {separator!r}; if it separates "
                "captions, write each caption in its own column or row"
            ]
    return []

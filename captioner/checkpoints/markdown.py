"""Strings of configs in Markdown, for model cards.

A config may come from a stranger, so its strings are shown as plain text and cannot add lines or
markup.
"""

import re

from ..errors import InputError


def one_line(value: object) -> str:
    """Return a value as one line, with question marks for characters that cannot be printed."""
    return "".join(c if c.isprintable() else "?" for c in str(value))


def plain(value: object) -> str:
    """Escape a value so that Markdown shows it literally."""
    return re.sub(r"([\\`*_\[\]<>&|~$!])", r"\\\1", one_line(value))


def code(value: object) -> str:
    """Return a value as inline code in Markdown."""
    text = one_line(value)
    if "`" not in text:
        return f"`{text}`"
    fence = "`" * (1 + max(map(len, re.findall("`+", text))))
    return f"{fence} {text} {fence}"


def cell(text: str) -> str:
    """Escape the vertical bars in Markdown for a table cell; this is necessary even in code."""
    return re.sub(r"(?<!\\)\|", r"\|", text)


def check_license(license: str) -> None:
    """Raise InputError if `license` does not have the form of the hub's licence identifiers."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise InputError(
            f"license must be a Hugging Face license identifier, e.g. apache-2.0, got {license!r}"
        )

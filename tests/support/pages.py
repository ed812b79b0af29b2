"""What the pages tell people to type: README.md, CONTRIBUTING.md and docs/, taken apart.

A block is indented by four spaces and holds commands or Python, or it is fenced and says what it
holds: ```sh, ```python, or ```text for what is only shown.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md")))
]
PROGRAMS = (  # a block that begins with one of these holds commands
    "python pip captioner torchrun tensorboard curl pytest ruff mypy .ci/run "
    "cp mkdir ls head cat echo find"
).split()
SHOWN = ("text", "json", "nginx", "html", "csv")  # fences of what nobody types
FENCE = re.compile(r" *```(\w*)$")


@dataclass(frozen=True)
class Block:
    """What is no text, from line `line` of a page on; kind: sh, python or one of SHOWN."""

    line: int
    kind: str
    text: str

    @property
    def commands(self) -> list[str]:
        """One a line, or several joined by &&; comments and breaks after a backslash are gone."""
        whole = re.sub(r"\\\n\s*", "", self.text)
        lines = (re.sub(r"(^|\s+)# .*", "", line).strip() for line in whole.splitlines())
        return [part for line in lines if line for part in re.split(r"\s*&&\s*", line)]


def blocks(page: str) -> list[Block]:
    """The blocks of a page; raises ValueError for one that does not say what it is."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    return [_block(page, *each) for each in _stretches(lines)]


def inline(page: str) -> list[str]:
    """What stands between backticks in the page's text and tables, each on one line."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    for first, _, inside in list(_stretches(lines)):
        lines[first - 1 : first - 1 + len(inside)] = [""] * len(inside)
    lines = [line for line in lines if not FENCE.match(line)]
    return [
        " ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", "\n".join(lines))
    ]


def _stretches(lines: list[str]) -> Iterator[tuple[int, str, list[str]]]:
    """Line number of each block, what its fence says (nothing, if it has none), its lines."""
    number = 0
    while number < len(lines):
        first, fence = number, FENCE.match(lines[number])
        if fence:
            number += 1
            while not FENCE.match(lines[number]):
                number += 1
            yield first + 2, fence[1] or "?", lines[first + 1 : number]
        elif lines[number].startswith("    ") and number and not lines[number - 1]:
            while number < len(lines) and re.match(r" {4}|$", lines[number]):
                number += 1
            yield first + 1, "", lines[first:number]
            continue
        number += 1


def _block(page: str, line: int, kind: str, lines: list[str]) -> Block:
    text = textwrap.dedent("\n".join(lines)).strip("\n") + "\n"
    if not kind and text.split()[0] in PROGRAMS:
        kind = "sh"
    elif not kind and _is_python(text):
        kind = "python"
    if kind not in ("sh", "python", *SHOWN):
        raise ValueError(
            f"{page}:{line}: neither commands nor Python: fence what is only shown by ```text"
        )
    return Block(line, kind, text)


def _is_python(text: str) -> bool:
    try:
        return bool(ast.parse(text).body)
    except SyntaxError:
        return False

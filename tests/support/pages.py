"""The code blocks and inline code of README.md, CONTRIBUTING.md and docs/.

A block is indented by four spaces and holds commands or Python, or it is fenced and labelled:
```sh, ```python, or ```text for what is only shown.
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
SHOWN = ("text", "json", "nginx", "html", "csv")  # fences of what is not typed
FENCE = re.compile(r" *```(\w*)$")


@dataclass(frozen=True)
class Block:
    """A code block that begins at `line` of a page; kind: sh, python or one of SHOWN."""

    line: int
    kind: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The commands, one per line or joined by &&, without comments and continuation breaks."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        lines = (re.sub(r"(^|\s+)# .*", "", line).strip() for line in joined.splitlines())
        return [part for line in lines if line for part in re.split(r"\s*&&\s*", line)]


def blocks(page: str) -> list[Block]:
    """The code blocks of a page; raises ValueError for one without a recognisable kind."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    return [_block(page, *block) for block in _raw_blocks(lines)]


def inline(page: str) -> list[str]:
    """The inline code of the page's text and tables, each joined to one line."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    for first, _, body in list(_raw_blocks(lines)):
        lines[first - 1 : first - 1 + len(body)] = [""] * len(body)
    lines = [line for line in lines if not FENCE.match(line)]
    return [
        " ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", "\n".join(lines))
    ]


def _raw_blocks(lines: list[str]) -> Iterator[tuple[int, str, list[str]]]:
    """Line number, label ("" if indented, "?" if a fence has none) and lines of each block."""
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
            f"{page}:{line}: neither commands nor Python; fence what is only shown as ```text"
        )
    return Block(line, kind, text)


def _is_python(text: str) -> bool:
    try:
        return bool(ast.parse(text).body)
    except SyntaxError:
        return False

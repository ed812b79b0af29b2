"""Write the map of the code into CONTRIBUTING.md: python docs/house.py.

Its ROWS are also the layers that `tests/test_layers.py` checks.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
START, END = "<!-- map -->\n", "<!-- end of map -->\n"
# The layers: a room imports only from rooms before it.
ROWS = (
    *(
        "_version",
        "errors",
        "console",
        "git_lfs",
        "options",
        "option_files",
        "command_line",
        "atomic_io",
        "devices",
        "products",
        "meta",
        "compact",
        "pretrained",
        "distributed",
        "prefetch",
    ),
    *(
        "text",
        "data",
        "vision",
        "decoding",
        "models",
        "retrieval",
        "metrics",
        "plots",
        "heatmaps",
        "checkpoints",
    ),
    *(
        "caption",
        "captioner",
        "regions",
        "refinement",
        "linker",
        "relation",
        "pair_scorers",
        "reranker",
        "index",
    ),
    *("evaluation", "inference", "tasks"),
    *("training", "serving", "cli"),
    *("__main__",),
)


def first_line(path: Path) -> str:
    """The first line of a module's docstring, without final punctuation."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].rstrip(".;:,")


def draw() -> str:
    """The map as a fenced block: rooms in order with their modules and first lines."""
    lines = [f"{name:34}{first_line(ROOT / name)}" for name in ("train.py", "evaluate.py")]
    lines.append("captioner/")
    for name in ROWS:
        module = ROOT / "captioner" / f"{name}.py"
        if module.is_file():
            lines.append(_row(module, 1))
        else:
            lines += _room(ROOT / "captioner" / name, 1)
    return "```text\n" + "\n".join(lines) + "\n```\n"


def _row(module: Path, depth: int) -> str:
    return f"{'  ' * depth + module.name:34}{first_line(module)}"


def _room(room: Path, depth: int) -> list[str]:
    """The room's own line, then its modules and inner rooms by name."""
    lines = [f"{'  ' * depth + room.name + '/':34}{first_line(room / '__init__.py')}"]
    for path in sorted(room.iterdir()):
        if path.is_dir() and (path / "__init__.py").is_file():
            lines += _room(path, depth + 1)
        elif path.suffix == ".py" and path.name != "__init__.py":
            lines.append(_row(path, depth + 1))
    return lines


def main() -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}{draw()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Writes docs/api.md from the sources' own signatures and docstrings: python docs/api.py.

Sources are read, not imported, so that any version of Python writes the same page.
"""

import ast
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HEAD = """# API reference

Written by `python docs/api.py` from the docstrings; `tests/docs/test_pages.py` fails where it is stale.
A user's mistake raises `InputError`, a `ValueError` of one sentence. The first section is what
`captioner` itself exports; the others are for those who build on its parts.
"""
FIRST, EXPORTS = "From Python", "captioner"  # whose names are imported from the package
SECTIONS: dict[str, dict[str, tuple[str, ...]]] = {  # title: modules and their public names
    FIRST: {
        "captioner": ("Captioner",),
        "caption": ("Caption",),
        "decoding.options": ("DecodingOptions",),
        "errors": ("InputError",),
    },
    "Images and heatmaps": {
        "data.images": ("load_image", "Transform"),
        "plots.heatmaps": ("save_heatmap",),
    },
    "Data": {
        "data.readers": ("read_captions",),
        "data.dataset": ("CaptionData", "Example"),
        "data.demo.dataset": ("write_demo",),
    },
    "Text": {
        "text.tokenizer": ("split_words", "join_words"),
        "text.vocabulary": ("Vocabulary",),
    },
    "Scores": {
        "metrics.captions": ("corpus_scores", "compute_scores", "Scores"),
        "evaluation.split": ("score_captions", "evaluate_split", "Evaluation"),
        "metrics.bootstrap": ("intervals", "differences", "Interval"),
    },
    "Models": {
        "vision.encoders": ("build_encoder", "Encoder", "EncoderOptions"),
        "models.captioning.build": ("build_model",),
        "models.captioning.options": ("ModelOptions",),
        "checkpoints.checkpoint": ("load", "save", "Checkpoint"),
    },
    "Decoding": {
        "decoding.decode": ("decode",),
        "decoding.beam": ("beam_search",),
        "decoding.hypothesis": ("Hypothesis",),
        "decoding.teacher_forcing": ("score_captions",),
    },
    "Training": {
        "training.loop": ("fit",),
        "training.optimization": ("TrainingOptions",),
    },
    "Service": {"serving.app": ("create_app",), "serving.schemas": ("Limits",)},
}
LONGEST = 100  # characters of a signature on one line


def source(module: str) -> str:
    """What is written in a module of the package, or in the face of one of its rooms."""
    path = ROOT / "captioner" / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return path.read_text(encoding="utf-8")


def page() -> str:
    """The whole of docs/api.md."""
    parts = [HEAD]
    for title, modules in SECTIONS.items():
        parts.append(f"## {title}\n")
        for module, names in modules.items():
            body = ast.parse(source(module)).body
            known = {n.name: n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
            values = constants(body)
            shown = EXPORTS if title == FIRST else module
            parts += [part for name in names for part in described(shown, known[name], values)]
    return "\n".join(parts)


def constants(body: Sequence[ast.stmt]) -> dict[str, Any]:
    """The module's names for plain values."""
    found: dict[str, Any] = {}
    for node in body:
        if isinstance(node, ast.Assign):
            with suppress(ValueError):
                value, target = ast.literal_eval(node.value), node.targets[0]
                several = isinstance(target, ast.Tuple)
                names = target.elts if isinstance(target, ast.Tuple) else [target]
                found |= zip(map(ast.unparse, names), value if several else [value], strict=True)
    return found


def described(
    module: str, node: ast.FunctionDef | ast.ClassDef, values: Mapping[str, Any]
) -> Iterator[str]:
    """A function, or a class with its fields and public methods."""
    yield f"### `{module}.{node.name}`\n"
    if isinstance(node, ast.FunctionDef):
        yield f"```text\n{signature(node)}\n```\n"
    yield markdown(ast.get_docstring(node) or "") + "\n"
    if isinstance(node, ast.FunctionDef):
        return
    if "dataclass" in " ".join(decorators(node)):
        yield table(list(fields(node, values)))
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and (text := ast.get_docstring(inner)):
            if inner.name.startswith("_") or "overload" in decorators(inner):
                continue
            yield f"#### `{node.name}.{inner.name}`\n"
            yield f"```text\n{signature(inner)}\n```\n\n{markdown(text)}\n"


def decorators(node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    return [ast.unparse(each) for each in node.decorator_list]


def signature(node: ast.FunctionDef) -> str:
    """`name(arguments) -> result` on one line, or an argument a line where that is too long."""
    result = f" -> {ast.unparse(node.returns)}".replace("'", "") if node.returns else ""
    if "property" in decorators(node):
        return f"{node.name}{result}"
    given = [each.replace("'", '"') for each in arguments(node.args)]
    line = f"{node.name}({', '.join(given)}){result}"
    several = "".join(f"    {each},\n" for each in given)
    return line if len(line) <= LONGEST else f"{node.name}(\n{several}){result}"


def arguments(given: ast.arguments) -> Iterator[str]:
    """Each argument with its annotation and default, and the bare star; not self or cls."""
    defaults = [*[None] * (len(given.args) - len(given.defaults)), *given.defaults]
    pairs = [*zip(given.args, defaults, strict=True)]
    star: list[tuple[ast.arg, ast.expr | None]] = [(ast.arg("*"), None)] if given.kwonlyargs else []
    for each, default in [*pairs, *star, *zip(given.kwonlyargs, given.kw_defaults, strict=True)]:
        if each.arg not in ("self", "cls"):
            yield ast.unparse(each) + (f" = {ast.unparse(default)}" if default else "")
    if given.kwarg:
        yield f"**{ast.unparse(given.kwarg)}"


def fields(node: ast.ClassDef, values: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and help of each; option(...) brings the last two."""
    for each in node.body:
        if not isinstance(each, ast.AnnAssign):
            continue
        kind = ast.unparse(each.annotation).strip("'\"").replace("|", "\\|")
        default, told = each.value, ""
        if isinstance(default, ast.Call):
            is_option = ast.unparse(default.func) == "option"
            told = filled(default.args[1], values) if is_option else ""
            default = default.args[0] if is_option else None
        shown = f"`{ast.unparse(default)}`" if default else ""
        yield f"`{ast.unparse(each.target)}`", f"`{kind}`", shown, told.replace("<", "\\<")


def filled(node: ast.expr, values: Mapping[str, Any]) -> str:
    """A string, with the module's constants in the places that name them."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    names = [each.value if isinstance(each, ast.FormattedValue) else each for each in parts]
    return "".join(
        str(each.value) if isinstance(each, ast.Constant) else str(values[ast.unparse(each)])
        for each in names
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown, without the columns that hold nothing."""
    width = max(number + 1 for row in rows for number, cell in enumerate(row) if cell)
    lines = [("field", "type", "default", ""), ("---",) * 4, *rows]
    return "".join(f"| {' | '.join(line[:width])} |\n" for line in lines)


def markdown(text: str) -> str:
    """A docstring: signs that would mean something are taken literally, paragraphs are filled."""
    parts = re.split(r"(`[^`]+`)", text)
    parts[::2] = [re.sub(r"([*<])", r"\\\1", part) for part in parts[::2]]
    return "\n\n".join(
        each if each.startswith("    ") else textwrap.fill(each, 118, break_on_hyphens=False)
        for each in "".join(parts).split("\n\n")
    )


if __name__ == "__main__":
    (ROOT / "docs" / "api.md").write_text(page(), encoding="utf-8")

"""Write docs/api.md from signatures and docstrings: python docs/api.py.

Sources are parsed, not imported, so that every version of Python writes the same page.
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

Generated from the docstrings by `python docs/api.py`; `tests/docs/test_pages.py` fails if it is
stale. The first section is what `captioner` itself exports, the others are its parts. A user's
mistake raises `InputError`, a `ValueError` of one sentence.
"""
FIRST, EXPORTS = "From Python", "captioner"  # whose names are imported from the package
SECTIONS: dict[str, dict[str, tuple[str, ...]]] = {  # title: modules and their public names
    FIRST: {
        "captioner": ("Captioner",),
        "caption": ("Caption",),
        "linker": ("Linker",),
        "index": ("Index", "Hit"),
        "relation": ("RelationClassifier", "Relation"),
        "reranker": ("Reranker",),
        "decoding.options": ("DecodingOptions",),
        "training.api": ("train",),
        "training.config": ("TrainConfig",),
        "training.result": ("TrainingResult",),
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
        "vision.encoders": ("build_encoder", "Encoder"),
        "vision.options": ("EncoderOptions",),
        "models.captioning.build": ("build_model",),
        "models.captioning.options": ("ModelOptions",),
        "models.linking.options": ("LinearOptions",),
        "checkpoints.checkpoint": ("load", "save", "Checkpoint"),
    },
    "Search": {
        "retrieval.query": ("parse", "Query", "Term"),
        "retrieval.exact": ("search",),
        "inference.indexing": ("index_images", "IndexOptions"),
        "inference.text_indexing": ("index_texts",),
    },
    "Decoding": {
        "decoding.decode": ("decode",),
        "decoding.beam": ("beam_search",),
        "decoding.hypothesis": ("Hypothesis",),
        "decoding.teacher_forcing": ("score_captions",),
    },
    "Training": {
        "tasks.options": ("DataOptions", "TrainingOptions", "RunOptions"),
        "tasks.captioning.options": ("CaptioningOptions",),
        "tasks.linking.options": ("LinearTaskOptions",),
        "text.options": ("TextVectorOptions",),
        "tasks.task": ("Task", "Job"),
        "training.loop": ("fit",),
    },
    "Service": {
        "serving.app": ("create_app",),
        "serving.loading": ("load_models",),
        "serving.schemas": ("Limits",),
        "serving.access": ("Access",),
    },
}
MAX_LINE = 100  # characters of a signature on one line


def source(module: str) -> str:
    """The source of a module of the package, or of a room's `__init__.py`."""
    path = ROOT / "captioner" / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return path.read_text(encoding="utf-8")


def page() -> str:
    """The text of docs/api.md."""
    parts = [HEAD]
    for title, modules in SECTIONS.items():
        parts.append(f"## {title}\n")
        for module, names in modules.items():
            body = ast.parse(source(module)).body
            definitions = {n.name: n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
            values = constants(body)
            shown = EXPORTS if title == FIRST else module
            for name in names:
                parts += describe(shown, definitions[name], values)
    return "\n".join(parts)


def constants(body: Sequence[ast.stmt]) -> dict[str, Any]:
    """The module's constants with literal values, by name."""
    values: dict[str, Any] = {}
    for node in body:
        if isinstance(node, ast.Assign):
            with suppress(ValueError):
                value, target = ast.literal_eval(node.value), node.targets[0]
                if isinstance(target, ast.Tuple):
                    values |= zip(map(ast.unparse, target.elts), value, strict=True)
                else:
                    values[ast.unparse(target)] = value
    return values


def describe(
    module: str, node: ast.FunctionDef | ast.ClassDef, values: Mapping[str, Any]
) -> Iterator[str]:
    """Markdown of a function, or of a class with its fields and public methods."""
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
    return [ast.unparse(decorator) for decorator in node.decorator_list]


def signature(node: ast.FunctionDef) -> str:
    """`name(arguments) -> result` on one line, or one argument per line if that is too long."""
    result = f" -> {ast.unparse(node.returns)}".replace("'", "") if node.returns else ""
    if {"property", "cached_property"} & set(decorators(node)):
        return f"{node.name}{result}"
    parameters = [text.replace("'", '"') for text in arguments(node.args)]
    line = f"{node.name}({', '.join(parameters)}){result}"
    if len(line) <= MAX_LINE:
        return line
    lines = "".join(f"    {text},\n" for text in parameters)
    return f"{node.name}(\n{lines}){result}"


def arguments(signature: ast.arguments) -> Iterator[str]:
    """Each argument with its annotation and default, and the bare star; not self or cls."""
    required = len(signature.args) - len(signature.defaults)
    pairs = [*zip(signature.args, [*[None] * required, *signature.defaults], strict=True)]
    if signature.kwonlyargs:
        pairs.append((ast.arg("*"), None))
        pairs += zip(signature.kwonlyargs, signature.kw_defaults, strict=True)
    for argument, default in pairs:
        if argument.arg not in ("self", "cls"):
            yield ast.unparse(argument) + (f" = {ast.unparse(default)}" if default else "")
    if signature.kwarg:
        yield f"**{ast.unparse(signature.kwarg)}"


def fields(node: ast.ClassDef, values: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and help of each field; the last two come from `option(...)`."""
    for field in node.body:
        if not isinstance(field, ast.AnnAssign):
            continue
        kind = ast.unparse(field.annotation).strip("'\"").replace("|", "\\|")
        default, help_text = field.value, ""
        if isinstance(default, ast.Call):
            is_option = ast.unparse(default.func) == "option"
            help_text = fill(default.args[1], values) if is_option else ""
            default = default.args[0] if is_option else None
        shown = f"`{ast.unparse(default)}`" if default else ""
        yield f"`{ast.unparse(field.target)}`", f"`{kind}`", shown, help_text.replace("<", "\\<")


def fill(node: ast.expr, values: Mapping[str, Any]) -> str:
    """The text of a string or f-string, whose names are the module's constants."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    expressions = [part.value if isinstance(part, ast.FormattedValue) else part for part in parts]
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else str(values[ast.unparse(part)])
        for part in expressions
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of fields, without trailing empty columns."""
    width = max(number + 1 for row in rows for number, cell in enumerate(row) if cell)
    lines = [("field", "type", "default", ""), ("---",) * 4, *rows]
    return "".join(f"| {' | '.join(line[:width])} |\n" for line in lines)


def markdown(text: str) -> str:
    """A docstring as Markdown: special characters escaped outside code, paragraphs filled."""
    parts = re.split(r"(`[^`]+`)", text)
    parts[::2] = [re.sub(r"([*<])", r"\\\1", part) for part in parts[::2]]
    return "\n\n".join(
        block if block.startswith("    ") else textwrap.fill(block, 118, break_on_hyphens=False)
        for block in "".join(parts).split("\n\n")
    )


if __name__ == "__main__":
    (ROOT / "docs" / "api.md").write_text(page(), encoding="utf-8")

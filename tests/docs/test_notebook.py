"""The notebook of the quick start: its cells run in order, on tiny data instead of the demo."""

import ast
import json

import pytest

from captioner import Captioner, TrainConfig
from captioner.caption import Caption
from tests.support import tiny
from tests.support.pages import ROOT

NOTEBOOK = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(c["source"]) for c in NOTEBOOK["cells"] if c["cell_type"] == "code"]


def run_cell(source, names):
    """Run a cell and return the value of its last line, if it is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None


def test_the_notebook_is_stored_without_results():
    assert NOTEBOOK["nbformat"] == 4
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    for cell in NOTEBOOK["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.slow
def test_its_cells_run(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build = TrainConfig.from_options
    short = {
        **{"data": str(tiny.data(tmp_path_factory)), "workers": 0, "device": "cpu", "epochs": 2},
        **{"batch_size": 8, "image_size": 32, "hidden_size": 16, "embedding_size": 16},
        **{"min_count": 1, "precision": "float32", "samples": 0, "heatmaps": 0, "curves": False},
    }
    monkeypatch.setattr(TrainConfig, "from_options", lambda **options: build(**short, **options))
    install, *cells = CODE
    assert install.startswith("%pip install")
    names = {}
    values = [run_cell(source, names) for source in cells]
    photograph, score, caption, figure, ranking, captioner = values
    assert photograph.text == "a man with a camera"
    assert 0 <= score <= 100
    assert isinstance(caption, Caption)
    assert caption.text in caption._repr_html_() or caption.words
    assert figure.format == "PNG"
    figure.close()
    assert len(ranking) == 3
    assert isinstance(captioner, Captioner)

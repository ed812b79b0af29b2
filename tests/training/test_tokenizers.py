"""Training and evaluation of captions in a script without spaces."""

import json
import sys
from pathlib import Path

import pytest

import evaluate
import train
from captioner import Captioner
from captioner.errors import InputError
from captioner.training.config import TrainConfig
from captioner.training.run import run_training
from tests.support import tiny

pytestmark = pytest.mark.slow
NAMES = dict(
    zip(tiny.COLOURS, ["红色", "绿色", "蓝色", "黄色", "紫色", "白色", "黑色", "灰色"], strict=True)
)
FUNCTION = '''
def cut(sentence):
    """Words of two characters, as a segmenter returns them."""
    return [sentence[i : i + 2] for i in range(0, len(sentence), 2)]
'''


@pytest.fixture
def chinese(tmp_path, monkeypatch):
    """Plain colours with captions such as 图中只有红色, and a module that splits them."""
    monkeypatch.chdir(tmp_path)
    root = tiny.write_colours(tmp_path / "data")
    for file in (root / "annotations").iterdir():
        content = json.loads(file.read_text())
        for caption in content["annotations"]:
            caption["caption"] = f"图中只有{NAMES[caption['caption'].split()[0]]}"
        file.write_text(json.dumps(content))
    Path("segmenter.py").write_text(FUNCTION)
    monkeypatch.syspath_prepend(tmp_path)
    yield root
    sys.modules.pop("segmenter", None)


def test_characters(chinese, capsys):
    options = ["--data", "data", *tiny.OPTIONS]
    train.main([*options, "--run", "words"])
    assert "note: most captions are a single word" in capsys.readouterr().out
    train.main([*options, "--run", "characters", "--tokenizer", "characters"])
    printed = capsys.readouterr().out
    assert "single word" not in printed
    assert "tokens:characters" in (Path("checkpoints/characters/log.jsonl").read_text() + printed)
    captioner = Captioner.from_pretrained("checkpoints/characters")
    assert {"图", "中", "红", "色"} <= set(captioner.vocabulary.words)
    assert " " not in captioner.caption(chinese / "val" / "100.png").text
    assert captioner.score([chinese / "val" / "100.png"], ["图中只有红色"])[0] < 0
    evaluate.main(["--checkpoint", "checkpoints/characters", "--metrics", "bleu"])
    assert "|tokens:characters|" in capsys.readouterr().out
    again = TrainConfig.from_file(Path("checkpoints/characters"))
    assert again.task.tokenizer == "characters"
    start = "checkpoints/words"
    with pytest.raises(InputError, match="--tokenizer cannot be combined with --start-from"):
        TrainConfig.from_options(data=chinese, start_from=start, tokenizer="characters")


def test_a_function(chinese, capsys):
    from segmenter import cut

    options = {"data": chinese, "hidden_size": 16, "embedding_size": 16, "image_size": 32}
    options |= {"min_count": 1, "workers": 0, "samples": 0, "heatmaps": 0, "curves": False}
    options |= {"epochs": 1, "run": "function", "device": "cpu"}
    run_training(TrainConfig.from_options(**options, tokenizer=cut))
    words = Captioner.from_pretrained("checkpoints/function").vocabulary.words
    assert {"图中", "只有", "红色"} <= set(words)
    capsys.readouterr()
    command = ["--checkpoint", "checkpoints/function", "--metrics", "bleu"]
    with pytest.raises(InputError, match="is the Python function segmenter:cut, which checkpoints"):
        evaluate.main(command)
    evaluate.main([*command, "--tokenizer", "segmenter:cut"])
    assert "|tokens:segmenter:cut|" in capsys.readouterr().out
    evaluate.main([*command, "--tokenizer", "characters"])
    assert "|tokens:characters|" in capsys.readouterr().out
    again = {**options, "start_from": "checkpoints/function", "run": "again"}
    again.pop("min_count")
    with pytest.raises(InputError, match="is the Python function segmenter:cut, not words"):
        run_training(TrainConfig.from_options(**again))
    run_training(TrainConfig.from_options(**again, tokenizer="segmenter:cut"))

"""The commands suggested at the end of training."""

import shlex
import sys
import warnings
from pathlib import Path

import pytest

import evaluate
import train
from captioner import __main__
from captioner.tasks import commands as hints
from captioner.tasks.captioning import job
from captioner.tasks.captioning.job import next_commands
from captioner.training.progress import Progress
from captioner.training.summary import may_improve
from tests.support import linking, tiny


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--attention"]])
def test_suggested_commands_work(tmp_path, tmp_path_factory, monkeypatch, capsys, options):
    monkeypatch.chdir(tmp_path)
    data = str(tiny.data(tmp_path_factory))
    argv = ["--data", data, "--run", "run", *tiny.OPTIONS, "--epochs", "1", *options]
    monkeypatch.setattr(sys, "argv", ["train.py", *argv])
    train.main()
    lines = capsys.readouterr().out.partition("next steps:\n")[2].splitlines()
    score, caption, serve, _, longer = (shlex.split(line) for line in lines)
    assert score[:2] == ["python", "evaluate.py"]
    assert "--split test" in lines[0]
    evaluate.main([*score[2:], "--workers", "0", "--metrics", "bleu"])
    assert "test split, 3 images" in capsys.readouterr().out
    assert caption[:3] == serve[:3] == ["python", "-m", "captioner"]
    __main__.main(caption[3:])
    assert capsys.readouterr().out.startswith(f"{caption[4]}\t")
    assert Path("checkpoints/run/maps").exists() == bool(options)
    assert __main__.parser().parse_args(serve[3:]).runs == [Path("checkpoints/run")]
    assert lines[3] == "the last epoch was the best; more epochs may improve the scores:"
    assert longer[:2] == ["python", "train.py"]
    train.main(longer[2:])
    assert len(Path("checkpoints/run-2-epochs/log.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
def test_suggested_commands_of_a_linking_run_work(tmp_path, tmp_path_factory, monkeypatch, capsys):
    """They score the run, search its images, and caption one of them by retrieval."""
    weights = linking.encoder_weights(tmp_path_factory)
    monkeypatch.chdir(tmp_path)
    options = {"data": tiny.data(tmp_path_factory), "encoder_weights": weights, "run": "run"}
    argv = linking.flags(options | linking.PLAIN)
    monkeypatch.setattr(sys, "argv", ["train.py", *argv])
    train.main(argv)
    lines = capsys.readouterr().out.partition("next steps:\n")[2].splitlines()
    score, *others = (shlex.split(line) for line in lines)
    assert score == "python evaluate.py --checkpoint checkpoints/run --split test".split()
    names = [command[3] for command in others]
    assert names == ["index", "search", "index", "search"]
    found = []
    for command in others:
        assert command[:3] == ["python", "-m", "captioner"]
        __main__.main(command[3:])
        found.append(capsys.readouterr().out.splitlines())
    images, first, texts, second = found
    assert images[0].startswith("index: checkpoints/run/images.index, 7 images: 7 embedded")
    assert texts[0].startswith("index: checkpoints/run/captions.index, ")
    assert Path(first[1].split("\t")[1]).exists()
    assert second[0].startswith("query: image:")


@pytest.mark.parametrize(
    ("epoch", "best_epoch", "expected"), [(4, 4, True), (4, 3, False), (3, 3, False)]
)
def test_longer_training_is_suggested_if_the_last_of_all_epochs_was_best(
    epoch, best_epoch, expected
):
    assert may_improve(Progress(epoch=epoch, best_epoch=best_epoch), epochs=4) == expected


def test_command_of_a_longer_training(monkeypatch):
    run = Path("checkpoints/my run")
    argv = ["--run", "my run", "--epochs=3", "--resume", "--data", "my data", "--epo", "3", "--res"]
    argv += ["--resume", "auto", "--resume=auto"]
    monkeypatch.setattr(sys, "argv", ["../here/train.py"])
    kept = "../here/train.py --data 'my data' --epo 3"
    changed = "--epochs 6 --run 'my run-6-epochs'"
    assert hints.longer_command(argv, run, 6) == f"python {kept} {changed}"
    distributed = hints.longer_command(argv, run, 6, processes=2)
    assert distributed == f"torchrun --nproc-per-node 2 -- {kept} {changed}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.distributed.run import get_args_parser
    parsed = get_args_parser().parse_args(shlex.split(distributed)[1:])
    assert parsed.training_script == "../here/train.py"
    assert parsed.training_script_args[-2:] == ["--run", "my run-6-epochs"]


@pytest.mark.parametrize(
    ("started", "program", "launched"),
    [
        ("/usr/bin/captioner", "captioner", "-m -- captioner"),
        ("/lib/captioner/__main__.py", "python -m captioner", "-m -- captioner"),
        ("notebook.py", "python -m captioner", "-m -- captioner"),
    ],
)
def test_commands_after_captioner_train(monkeypatch, started, program, launched):
    """They name the command as it was started; after a user's own program, `python -m`."""
    monkeypatch.setattr(sys, "argv", [started])
    run = Path("checkpoints/run")
    changed = "--attention --epochs 6 --run run-6-epochs"
    argv = ["--attention", "--run", "run"]
    assert hints.longer_command(argv, run, 6) == f"{program} train {changed}"
    distributed = hints.longer_command(argv, run, 6, processes=2)
    assert distributed == f"torchrun --nproc-per-node 2 {launched} train {changed}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.distributed.run import get_args_parser
    parsed = get_args_parser().parse_args(shlex.split(distributed)[1:])
    assert (parsed.module, parsed.training_script) == (True, "captioner")
    assert parsed.training_script_args == ["train", *changed.split()]
    evaluate, caption, serve = next_commands(run, "val", Path("p"), 3, False)
    assert evaluate.startswith(f"{program} evaluate --checkpoint checkpoints/run")
    assert caption.startswith(f"{program} caption p")
    assert f"{program} serve checkpoints/run" in serve


def test_serving_without_its_extra_is_suggested_with_the_installation(monkeypatch):
    monkeypatch.setattr(job, "find_spec", lambda _: None)
    *_, serve = next_commands(Path("r"), "val", Path("p"), 3, False)
    assert serve == "pip install 'captioner[serve]' && python -m captioner serve r"

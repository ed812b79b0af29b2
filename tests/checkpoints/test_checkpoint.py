"""Checkpoints: round trips, atomic writing, every kind of damage, which one a path means."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from captioner.atomic_io import sibling_path
from captioner.checkpoints.checkpoint import FORMAT, VOCABULARY, find, load, save
from captioner.errors import InputError
from captioner.text.vocabulary import Vocabulary
from tests.support.signing import FILES, sign

CONFIG = {"task": "captioning", "model": {"hidden_size": 3}, "scores": {"BLEU-4": 12.5}}


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(4, 3, generator=generator)
    return {
        "a.weight": matrix,
        "a.turned": matrix.T,
        "half": matrix.half(),
        "bfloat": matrix.bfloat16(),
        "count": torch.tensor(7),
    }


def training_state(seed: int = 0) -> dict[str, object]:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1 + seed)
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    progress = {"step": seed, "best": None, "history": [{"loss": 1.5}], "sums": {"words": 3.0}}
    return {"progress": progress, "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}


def write(directory: Path, seed: int = 0) -> Path:
    save(directory, CONFIG, writer(f"word{seed}", "犬"), weights(seed), training_state(seed))
    return directory


def writer(*words: str):
    return lambda directory: Vocabulary(words).save(directory / VOCABULARY)


def read_files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


# ---- round trips -------------------------------------------------------------------------------


def test_round_trip(tmp_path):
    directory, state = tmp_path / "deep" / "run" / "best", training_state()
    save(directory, CONFIG, writer("word0", "犬"), weights(), state)
    read = load(directory)
    assert read.path == directory
    assert read.config == {"format": FORMAT, **CONFIG}
    assert read.vocabulary.words == ("word0", "犬")
    assert read.weights.keys() == weights().keys()
    for name, value in weights().items():
        assert torch.equal(read.weights[name], value)
        assert read.weights[name].dtype == value.dtype
    loaded = read.training_state()
    assert loaded["progress"] == state["progress"]
    assert loaded["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]
    for number, values in state["optimizer"]["state"].items():
        for key, value in values.items():
            assert torch.equal(loaded["optimizer"]["state"][number][key], value)
    assert torch.equal(loaded["rng"], state["rng"])


def test_saving_leaves_only_the_five_files(tmp_path):
    write(tmp_path / "run" / "last")
    write(tmp_path / "run" / "last", seed=1)
    assert set(read_files(tmp_path)) == {f"run/last/{name}" for name in FILES}
    assert load(tmp_path / "run").vocabulary.words[0] == "word1"


def test_all_files_have_the_permissions_of_a_new_file(tmp_path):
    (tmp_path / "plain").touch()
    plain = (tmp_path / "plain").stat().st_mode
    directory = write(tmp_path / "run" / "last")
    assert {path.name: path.stat().st_mode for path in directory.iterdir()} == dict.fromkeys(
        FILES, plain
    )


def test_a_checkpoint_has_the_permissions_of_a_new_directory(tmp_path):
    (tmp_path / "plain").mkdir()
    plain = (tmp_path / "plain").stat().st_mode
    assert write(tmp_path / "run" / "last").stat().st_mode == plain


# ---- atomic writing -----------------------------------------------------------------------------

STAGES = {
    "vocabulary": "captioner.text.vocabulary.Vocabulary.save",
    "weights": "safetensors.torch.save_file",
    "training state": "torch.save",
    "manifest": "hashlib.file_digest",
    "sync": "os.fsync",
    "replace": "pathlib.Path.rename",
}


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
@pytest.mark.parametrize("stage", STAGES)
def test_a_failure_at_any_stage_leaves_the_old_checkpoint(tmp_path, monkeypatch, stage, error):
    directory = write(tmp_path / "run" / "best")
    before = read_files(tmp_path)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(STAGES[stage], fail)
    for target in (directory, tmp_path / "run" / "last"):
        message = (
            f"checkpoint {target} cannot be written: .*No space left on device; check that .* bytes"
        )
        with (
            pytest.raises(InputError, match=message)
            if isinstance(error, OSError)
            else pytest.raises(KeyboardInterrupt)
        ):
            write(target, seed=1)
    assert read_files(tmp_path) == before
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["best"]
    monkeypatch.undo()
    assert load(write(directory, seed=2)).vocabulary.words[0] == "word2"


def test_a_failure_inside_torch_save(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("unexpected pos 576 vs 534\nbacktrace")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(
        InputError, match=r"best cannot be written: unexpected pos 576 vs 534; check that"
    ):
        write(tmp_path / "best")
    assert read_files(tmp_path) == {}


FULL = """
import resource, sys
from pathlib import Path
from tests.checkpoints import test_checkpoint
import torch
from captioner.checkpoints.checkpoint import save
from captioner.errors import InputError

write_text = test_checkpoint.writer("new")
large = {"large": torch.zeros(100_000)}
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
for weights, state in ((large, {}), ({}, large)):
    try:
        save(Path(sys.argv[1]), test_checkpoint.CONFIG, write_text, weights, state)
    except InputError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_full_disk(tmp_path):
    """Simulated by a limit on the size of files."""
    directory = write(tmp_path / "best")
    before = read_files(tmp_path)
    outcome = subprocess.run(
        [sys.executable, "-c", FULL, directory],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = outcome.stdout.splitlines()
    assert outcome.returncode == 0, outcome
    assert len(lines) == 2, outcome
    for line in lines:
        assert line.startswith(f"checkpoint {directory} cannot be written: ")
        assert "File too large" in line
        assert "more than 400,000 bytes are free" in line
    assert read_files(tmp_path) == before


def test_remains_of_a_killed_run_are_removed_by_the_next_save(tmp_path):
    directory = write(tmp_path / "best")
    part = tmp_path / ".best.part"
    part.mkdir()
    (part / "model.safetensors").write_bytes(b"half")
    for path in (part / "model.safetensors", part):
        os.utime(path, (0, 0))  # long ago: its writer has been killed
    assert load(directory).vocabulary.words[0] == "word0"
    write(directory, seed=1)
    assert set(read_files(tmp_path)) == {f"best/{name}" for name in FILES}


def test_killed_between_the_two_renames(tmp_path, monkeypatch):
    """The old checkpoint has been renamed, the new one has not: the old one is found."""
    run = tmp_path / "run"
    directory = write(run / "best")
    write(run / "last", seed=5)
    rename = Path.rename

    def killed(self, target):
        if Path(target) == directory:
            raise SystemExit
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(SystemExit):
        write(directory, seed=1)
    monkeypatch.undo()
    assert not directory.exists()
    for path in (directory, run):
        assert find(path) == sibling_path(directory, "old")
        assert load(path).vocabulary.words[0] == "word0"
    write(directory, seed=2)
    assert load(run).vocabulary.words[0] == "word2"
    assert sorted(path.name for path in run.iterdir()) == ["best", "last"]


def test_killed_before_the_old_checkpoint_was_deleted(tmp_path):
    write(tmp_path / "best", seed=1)
    write(sibling_path(tmp_path / "best", "old"))
    assert load(tmp_path / "best").vocabulary.words[0] == "word1"
    write(tmp_path / "best", seed=2)
    assert load(tmp_path / "best").vocabulary.words[0] == "word2"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_the_new_files_are_synced_before_the_old_ones_are_renamed(tmp_path, monkeypatch):
    directory, events = write(tmp_path / "best"), []
    rename, fsync = Path.rename, os.fsync

    def renamed(self, target):
        events.append("rename")
        return rename(self, target)

    def synced(descriptor):
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(os, "fsync", synced)
    write(directory, seed=1)
    first = events.index("rename")
    assert set(events[:first]) >= set(FILES)
    assert events.count("rename") == 2
    assert events[-1] == tmp_path.name


# ---- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(tmp_path, name):
    directory = write(tmp_path / "best")
    (directory / name).unlink()
    message = (
        f"is incomplete: {name} is missing"
        if name != "manifest.json"
        else "does not contain a checkpoint"
    )
    with pytest.raises(InputError, match=message) as caught:
        load(directory)
    assert str(directory) in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[: len(data) // 2], lambda _: b"", lambda data: data + b"\0"],
    ids=["truncated", "emptied", "lengthened"],
)
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_wrong_length(tmp_path, name, damage):
    file = write(tmp_path / "best") / name
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError) as caught:
        load(tmp_path / "best")
    assert str(tmp_path / "best") in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit(tmp_path, name):
    file = write(tmp_path / "best") / name
    original = file.read_bytes()
    for position in range(0, len(original), max(1, len(original) // 40)):
        data = bytearray(original)
        data[position] ^= 1 << position % 8
        file.write_bytes(data)
        with pytest.raises(InputError, match=r"is damaged: |incomplete: |cannot be read") as caught:
            load(tmp_path / "best")
        assert str(tmp_path / "best") in str(caught.value)


def test_a_training_state_that_the_manifest_lacks_is_named(tmp_path):
    """It does not belong to the checkpoint, and there is no checksum that it could match."""
    directory = write(tmp_path / "best")
    manifest = json.loads((directory / "manifest.json").read_text())
    del manifest["training_state.pt"]
    (directory / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"training_state.pt has no checksum in manifest.json; "):
        load(directory)


READS = "this version of captioner reads formats"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format": 8},
            f"cannot be loaded: it has format 8, but {READS} 5, 6 and 7; update captioner",
        ),
        (
            {"format": 1},
            f"cannot be loaded: it has format 1, but {READS} 5, 6 and 7; retrain the model",
        ),
        ({"format": "6"}, f"cannot be loaded: it has format 6, but {READS}"),
        ({"format": [6]}, rf"cannot be loaded: it has format \[6\], but {READS}"),
        ({"format": None}, f"cannot be loaded: it has format None, but {READS}"),
        ({"task": "retrieval"}, "was trained for 'retrieval', not 'captioning'"),
        ({"task": None}, "was trained for None, not 'captioning'"),
    ],
)
def test_checkpoints_of_another_format_or_task(tmp_path, change, message):
    directory = write(tmp_path / "best")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **change}))
    sign(directory)
    with pytest.raises(InputError, match=f"checkpoint {directory} {message}"):
        load(directory).check_task("captioning")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("config.json", b"[1]", "cannot be read: its content is not a JSON object"),
        ("config.json", b"{", "cannot be read"),
        ("config.json", b"[" * 100_000, "cannot be read"),
        ("config.json", b"\xff", "cannot be read"),
        ("vocabulary.json", b"{}", "is not a vocabulary"),
        ("model.safetensors", b"\x08\0\0\0\0\0\0\0{}      junk", "cannot be read"),
        ("model.safetensors", b"\xff" * 16, "cannot be read"),
    ],
)
def test_files_with_invalid_content(tmp_path, name, data, message):
    directory = write(tmp_path / "best")
    (directory / name).write_bytes(data)
    sign(directory)
    with pytest.raises(InputError, match=f"{directory / name}:? {message}"):
        _ = load(directory).vocabulary


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path, value):
    directory = write(tmp_path / "best")
    not_finite = weights() | {"half": torch.tensor([1, value]).half(), "a.turned": torch.zeros(1)}
    safetensors.torch.save_file(not_finite, directory / "model.safetensors")
    sign(directory)
    with pytest.raises(
        InputError, match=r"model.safetensors cannot be used: half contains values that are not"
    ):
        load(directory)


class Bomb:
    """A pickle that creates a directory when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_loading_a_training_state_runs_no_code(tmp_path):
    directory = write(tmp_path / "best")
    torch.save({"progress": Bomb(tmp_path / "exploded")}, directory / "training_state.pt")
    sign(directory)
    read = load(directory)
    with pytest.raises(InputError, match=r"best/training_state.pt cannot be read"):
        read.training_state()
    assert not (tmp_path / "exploded").exists()
    torch.load(directory / "training_state.pt", weights_only=False)
    assert (tmp_path / "exploded").exists()  # the bomb works


@pytest.mark.parametrize("data", [b"", b"junk", b"PK\3\4"])
def test_a_training_state_with_invalid_content(tmp_path, data):
    directory = write(tmp_path / "best")
    (directory / "training_state.pt").write_bytes(data)
    sign(directory)
    read = load(directory)
    with pytest.raises(InputError, match=r"training_state.pt cannot be read: \S"):
        read.training_state()


def test_a_training_state_that_is_not_a_dictionary(tmp_path):
    directory = write(tmp_path / "best")
    torch.save([1, 2], directory / "training_state.pt")
    sign(directory)
    with pytest.raises(InputError, match=r"training_state.pt cannot be read: it does not contain"):
        load(directory).training_state()


# ---- which one a path means-----------------------------------------------------------------------


def test_find(tmp_path, monkeypatch):
    run = tmp_path / "run"
    with pytest.raises(InputError, match=f"checkpoint {run} does not exist"):
        find(run)
    run.mkdir()
    with pytest.raises(
        InputError,
        match=r"run does not contain a checkpoint: there is no manifest.json in it, in best/ or",
    ):
        find(run)
    last = write(run / "last")
    assert find(run) == find(last) == last
    best = write(run / "best", seed=1)
    assert find(run) == find(best) == best
    assert find(last) == last
    with pytest.raises(InputError, match="other does not exist"):
        find(tmp_path / "other")
    monkeypatch.chdir(best)
    assert load(".").vocabulary.words[0] == load("").vocabulary.words[0] == "word1"
    monkeypatch.chdir(run)
    assert load(Path()).vocabulary.words[0] == "word1"
    assert load("last").vocabulary.words[0] == "word0"

"""Two processes on one machine train as one would, and caption each image once."""

import json
import socket
import time
from itertools import chain

import pytest
import torch
import torch.distributed as dist

import train
from captioner import distributed
from captioner.checkpoints import checkpoint
from captioner.errors import InputError
from captioner.vision.encoders import SmallCNN
from tests.support import tiny
from tests.support.processes import LAUNCH, ROOT, finish, start, two_nodes

SCRIPT = """
import json, os, signal, sys
from contextlib import nullcontext
from pathlib import Path
import torch
import train
from captioner import distributed
from captioner.evaluation import split as evaluation
from captioner.tasks.captioning import batches as epoch_batches
from captioner.errors import Interrupted

rank, options = os.environ["RANK"], sys.argv[1:]
caption_batches, load = evaluation.caption_batches, epoch_batches.make_batch
captioned, loaded = [], []

def counted_captions(model, images, chosen, *rest, **options):
    captioned.append([index for batch in chosen for index in batch])
    return caption_batches(model, images, chosen, *rest, **options)

def counted_load(*args):
    batch = load(*args)
    loaded.append(list(batch.ids))
    if "stopped" in options and rank == "1" and len(loaded) == 3:
        os.kill(os.getpid(), signal.SIGTERM)  # one of the two gets the signal
    return batch

evaluation.caption_batches = counted_captions
epoch_batches.make_batch = counted_load

with distributed.process_group(torch.device("cpu")):
    distributed.process_group = lambda *_: nullcontext()  # joined once for all that follows
    train.main([*options, "--run", "two"])
    Path(f"rank{rank}.json").write_text(json.dumps({"captioned": captioned, "loaded": loaded}))
    options += ["--dropout", "0.5", "--run"]
    train.main([*options, "straight"])
    loaded.clear()
    options += ["stopped"]
    try:
        train.main(options)
    except Interrupted as stopped:
        assert len(loaded) == 3, loaded
        Path(f"stopped{rank}").write_text(str(stopped))
    train.main([*options, "--resume"])
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A directory in which two processes ran the script above (frozen encoder, no dropout)."""
    directory = tmp_path_factory.mktemp("two")
    torch.manual_seed(3)
    torch.save(SmallCNN().state_dict(), directory / "encoder.pth")
    (directory / "script.py").write_text(SCRIPT)
    place = ["--rdzv-endpoint", "localhost:0", "--nproc-per-node", "2"]
    data = str(tiny.data(tmp_path_factory))
    finish(start(*LAUNCH, *place, directory / "script.py", *options(data), cwd=directory))
    return directory


def options(data):
    return [
        *["--data", data, *tiny.OPTIONS, "--encoder-weights", "encoder.pth", "--attention"],
        *["--dropout", "0", "--learning-rate", "0.01"],
    ]


def rows(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_two_processes_train_as_one(directory, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(directory)
    train.main([*options(str(tiny.data(tmp_path_factory))), "--run", "one"])
    one, two = (checkpoint.load(directory / "checkpoints" / name) for name in ("one", "two"))
    for key, value in one.weights.items():
        torch.testing.assert_close(two.weights[key], value, rtol=1e-3, atol=1e-5)
    for a, b in zip(rows(two.path.parent), rows(one.path.parent), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["cross_entropy"] == pytest.approx(b["cross_entropy"], rel=1e-4)
        assert a["coverage"] == pytest.approx(b["coverage"], rel=1e-4)
        assert a["BLEU-1"] == pytest.approx(b["BLEU-1"], abs=0.01)


def test_two_nodes_train_as_one_node_of_two_processes(directory, tmp_path_factory):
    data = str(tiny.data(tmp_path_factory))
    command = [*two_nodes(), "--", ROOT / "train.py", *options(data), "--run", "nodes"]
    printed = finish(start(*command, cwd=directory), start(*command, cwd=directory))
    assert printed.count("best epoch: ") == 1  # only one of the two prints
    one, two = (directory / "checkpoints" / name for name in ("two", "nodes"))
    for name in ("last", "best"):
        weights = checkpoint.load(two / name).weights
        for key, value in checkpoint.load(one / name).weights.items():
            torch.testing.assert_close(weights[key], value, rtol=0, atol=1e-6)
    for a, b in zip(rows(two), rows(one), strict=True):
        assert tiny.untimed(a) == pytest.approx(tiny.untimed(b), rel=1e-6)


def test_each_process_takes_its_share(directory):
    first, second = (json.loads((directory / f"rank{rank}.json").read_text()) for rank in (0, 1))
    epochs = [first["loaded"][i : i + 2] + second["loaded"][i : i + 2] for i in (0, 2)]
    for epoch in epochs:  # two steps of four images in each process
        assert sorted(chain(*epoch)) == list(range(16))
        assert {len(batch) for batch in epoch} == {4}
    assert first["captioned"] == [[0, 2, 4, 6]] * 3  # seven images: two epochs and the end
    assert second["captioned"] == [[1, 3, 5]] * 3


def test_a_signal_to_one_stops_both_and_resuming_is_exact(directory):
    assert [(directory / f"stopped{rank}").read_text() for rank in (0, 1)] == ["SIGTERM"] * 2
    straight, stopped = (directory / "checkpoints" / name for name in ("straight", "stopped"))
    for name in ("last", "best"):
        a, b = checkpoint.load(straight / name), checkpoint.load(stopped / name)
        assert all(torch.equal(value, b.weights[key]) for key, value in a.weights.items())
        a, b = a.training_state()["generators"], b.training_state()["generators"]
        assert len(a) == 2
        assert not torch.equal(a[0]["cpu"], a[1]["cpu"])
        assert all(torch.equal(x["cpu"], y["cpu"]) for x, y in zip(a, b, strict=True))
    for a, b in zip(rows(straight), rows(stopped), strict=True):
        assert tiny.untimed(a) == tiny.untimed(b)


KILLED = """
import os, signal, sys
import train
from captioner.tasks.captioning import batches as epoch_batches

load, loaded = epoch_batches.make_batch, []

def killed_load(*args):
    loaded.append(args)
    if (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]) == ("1", "0"):
        if len(loaded) == 4:  # in the second epoch
            os.kill(os.getpid(), signal.SIGKILL)
    return load(*args)

epoch_batches.make_batch = killed_load
train.main(sys.argv[1:])
"""


def test_a_killed_process_is_restarted_and_resumes_exactly(directory, tmp_path_factory):
    (directory / "killed.py").write_text(KILLED)
    place = ["--rdzv-endpoint", "localhost:0", "--nproc-per-node", "2", "--max-restarts", "1"]
    data = options(str(tiny.data(tmp_path_factory)))
    command = [*LAUNCH, *place, "--", directory / "killed.py", *data, "--dropout", "0.5"]
    finish(start(*command, "--run", "killed", "--resume", "auto", cwd=directory))
    straight, killed = (directory / "checkpoints" / name for name in ("straight", "killed"))
    for name in ("last", "best"):
        weights = checkpoint.load(killed / name).weights
        for key, value in checkpoint.load(straight / name).weights.items():
            assert torch.equal(weights[key], value)
    for a, b in zip(rows(straight), rows(killed), strict=True):
        assert tiny.untimed(a) == tiny.untimed(b)


HUNG = KILLED.replace("SIGKILL", "SIGSTOP")


@pytest.mark.slow
def test_a_stopped_process_ends_the_others_within_half_a_minute(directory, tmp_path_factory):
    (directory / "hung.py").write_text(HUNG)
    place = ["--rdzv-endpoint", "localhost:0", "--nproc-per-node", "2"]
    data = options(str(tiny.data(tmp_path_factory)))
    process = start(
        *LAUNCH, *place, "--", directory / "hung.py", *data, "--run", "hung", cwd=directory
    )
    run = directory / "checkpoints" / "hung"
    while process.poll() is None and not (run / "last").exists():
        time.sleep(0.1)
    saved = time.monotonic()
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - saved < 35  # the process is stopped within the first five seconds
    assert process.returncode == 1
    assert "training stopped in process 0, because process 1 ended or did not answer" in output
    checkpoint.load(run)


# ---- one process --------------------------------------------------------------------------------


def test_alone_nothing_is_done():
    with distributed.process_group(torch.device("cpu")):
        assert not dist.is_initialized()
        assert (distributed.rank(), distributed.world_size()) == (0, 1)
        assert distributed.is_first()
        distributed.barrier()
        values = torch.tensor([1.0, 2.0])
        assert distributed.total(values) is values
        assert distributed.gather("item") == ["item"]


@pytest.fixture
def started(monkeypatch):
    """Imitate a process that torchrun started on a machine with two GPUs; return its calls."""
    calls = []
    master = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", **master}.items():
        monkeypatch.setenv(name, value)
    store = dist.HashStore()
    monkeypatch.setattr(distributed, "rendezvous", lambda *_, **__: iter([(store, 3, 4)]))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, *_, **__: calls.append(backend))
    monkeypatch.setattr(dist, "new_group", lambda **_: None)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("left"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    return calls


@pytest.mark.parametrize(
    ("device", "calls"),
    [("cuda", [1, "nccl", "left"]), ("cuda:0", ["nccl", "left"]), ("cpu", ["gloo", "left"])],
)
def test_each_process_takes_a_gpu_of_its_own(started, device, calls):
    with pytest.raises(KeyError), distributed.process_group(torch.device(device)):
        raise KeyError
    assert started == calls


def test_more_processes_than_gpus(started, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    with (
        pytest.raises(
            InputError,
            match="process 2 has no GPU: this machine has 2; start at most one process per",
        ),
        distributed.process_group(torch.device("cuda")),
    ):
        pass
    assert started == []


# ---- part of torchrun's variables ---------------------------------------------------------------


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"WORLD_SIZE": "1", "LOCAL_RANK": "0"},
        {"RANK": "3", "LOCAL_RANK": "3"},
        {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"},
        {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "", "MASTER_PORT": ""},
    ],
)
def test_variables_left_by_a_scheduler_leave_a_process_alone(variables, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with distributed.process_group(torch.device("cpu")):
        assert not dist.is_initialized()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MASTER_ADDR": ""}, "WORLD_SIZE is 4, but MASTER_ADDR is not set; start .* torchrun"),
        (
            {"MASTER_ADDR": "", "MASTER_PORT": ""},
            "but MASTER_ADDR and MASTER_PORT are not set; .* or unset WORLD_SIZE",
        ),
        ({"RANK": ""}, "but RANK is not set; start"),
        ({"RANK": "4"}, "integers with 0 <= RANK < WORLD_SIZE, got RANK 4 and WORLD_SIZE 4; start"),
        ({"RANK": "-1"}, "got RANK -1 and"),
        ({"WORLD_SIZE": "two"}, "got RANK 3 and WORLD_SIZE two"),
    ],
)
def test_part_of_the_variables_of_torchrun(started, changes, message, monkeypatch):
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(InputError, match=message),
        distributed.process_group(torch.device("cpu")),
    ):
        pass
    assert started == []


def test_processes_that_cannot_meet(monkeypatch):
    values = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        values["MASTER_PORT"] = str(taken.getsockname()[1])
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        with (
            pytest.raises(InputError, match=r"cannot connect to 127.0.0.1:\d+ \(MASTER_.*torchrun"),
            distributed.process_group(torch.device("cpu")),
        ):
            pass

"""Files and directories are replaced as a whole, by any number of writers at the same time."""

import errno
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from captioner.atomic_io import (
    ABANDONED_SECONDS,
    atomic_directory,
    atomic_write,
    check_absent,
    lock_file,
    sibling_path,
)
from captioner.errors import InputError

ROOT = Path(__file__).parents[1]


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def run_python(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# ---- files --------------------------------------------------------------------------------------


def test_text_and_bytes_are_written_as_they_are(tmp_path):
    path = tmp_path / "new" / "directories" / "file.txt"
    atomic_write(path, "größe\r\n")
    assert path.read_bytes() == "größe\r\n".encode()
    atomic_write(path, b"\xff\n")
    assert path.read_bytes() == b"\xff\n"
    assert names(path.parent) == ["file.txt"]


def test_an_error_names_the_file_and_the_bytes_it_needs(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"No space left on device, 2,000 bytes needed") as caught:
        atomic_write(tmp_path / "file.txt", "ab" * 1000)
    assert caught.value.filename == str(tmp_path / "file.txt")
    assert names(tmp_path) == []


def test_an_error_with_another_cause_does_not_state_bytes(tmp_path, monkeypatch):
    def forbidden(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", forbidden)
    with pytest.raises(PermissionError) as caught:
        atomic_write(tmp_path / "file.txt", "ab")
    assert caught.value.strerror == "Permission denied"
    assert caught.value.filename == str(tmp_path / "file.txt")


HAMMER = """
import sys, time
from pathlib import Path
from captioner.atomic_io import atomic_write

path, letter = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
while not path.exists():
    time.sleep(0.001)
failures = torn = 0
for number in range(400):
    try:
        atomic_write(path, letter * 20_000)
    except OSError:
        failures += 1
    content = path.read_text()
    torn += len(content) != 20_000 or len(set(content)) != 1
print(failures, torn)
"""


def test_two_processes_write_one_file(tmp_path):
    """Neither fails, and no reader ever sees mixed or partial content."""
    path = tmp_path / "file"
    writers = [run_python(HAMMER, path, letter) for letter in "ab"]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    path.write_text("c" * 20_000)  # the start signal
    printed = [writer.communicate(timeout=60) for writer in writers]
    assert printed == [("0 0\n", "")] * 2
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch, error):
    atomic_write(tmp_path / "file", "old")

    def fail(*_):
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(type(error)):
        atomic_write(tmp_path / "file", "new")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_permissions_follow_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        atomic_write(tmp_path / "file", "text")
        with atomic_directory(tmp_path / "directory") as part:
            (part / "file").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "directory").stat().st_mode & 0o777 == 0o777 & ~mask


def test_names_of_the_greatest_length(tmp_path):
    atomic_write(tmp_path / ("é" * 127), "text")
    with atomic_directory(tmp_path / ("x" * 250)) as part:
        (part / "file").touch()
    assert names(tmp_path) == ["x" * 250, "é" * 127]


# ---- directories --------------------------------------------------------------------------------


def test_a_directory_appears_when_its_block_ends(tmp_path):
    directory = tmp_path / "new" / "directory"
    with atomic_directory(directory) as part:
        (part / "file").write_text("first")
        assert not directory.exists()
    with atomic_directory(directory) as part:
        (part / "other").write_text("second")
        assert names(directory) == ["file"]
    assert names(directory) == ["other"]
    assert names(directory.parent) == ["directory"]


def test_a_block_that_raises_leaves_the_old_directory(tmp_path):
    with atomic_directory(tmp_path / "directory") as part:
        (part / "file").touch()
    with pytest.raises(KeyError), atomic_directory(tmp_path / "directory") as part:  # noqa: PT012
        (part / "half").touch()
        raise KeyError
    assert names(tmp_path) == ["directory"]
    assert names(tmp_path / "directory") == ["file"]


def test_an_older_directory_is_kept_on_request(tmp_path):
    directory = tmp_path / "directory"
    directory.mkdir()  # an empty one may be replaced
    with atomic_directory(directory, replace=False) as part:
        (part / "first").touch()
    with pytest.raises(OSError), atomic_directory(directory, replace=False) as part:  # noqa: PT011
        (part / "second").touch()
    assert names(tmp_path) == ["directory"]
    assert names(directory) == ["first"]


def test_two_writers_of_one_directory_do_not_share_a_part(tmp_path):
    directory = tmp_path / "directory"
    with atomic_directory(directory) as first, atomic_directory(directory) as second:
        assert first != second
        (first / "file").write_text("first")
        (second / "file").write_text("second")
    assert (directory / "file").read_text() == "first"  # whose block ended last
    assert names(tmp_path) == ["directory"]


def test_writers_who_replace_one_directory_at_once_do_not_fail(tmp_path):
    """One of them moves the old directory aside while the other does."""

    def write(letter):
        for _ in range(150):
            with atomic_directory(tmp_path / "directory") as part:
                (part / "file").write_text(letter * 1000)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, "abc"))  # re-raises an exception of a writer
    assert names(tmp_path) == ["directory"]
    assert set((tmp_path / "directory" / "file").read_text()) in ({"a"}, {"b"}, {"c"})


def test_only_abandoned_parts_are_removed(tmp_path):
    """Partial files are removed after an hour without a write; those still written are kept."""
    directory, long_ago = tmp_path / "run.1", time.time() - ABANDONED_SECONDS - 60
    with atomic_directory(directory) as living:
        (living / "weights").touch()
        os.utime(living, (long_ago, long_ago))  # a file in it is still being written
        for name in (".run.1.part", f".run.1.{'0' * 32}.part", ".run.1.mine.part", ".run.1.old"):
            (tmp_path / name / "inner").mkdir(parents=True)
            os.utime(tmp_path / name / "inner", (long_ago, long_ago))
            os.utime(tmp_path / name, (long_ago, long_ago))
        with atomic_directory(tmp_path / "run.2"):
            pass
        assert len(names(tmp_path)) == 6
        with atomic_directory(directory) as part:
            assert set(names(tmp_path)) == {
                *(living.name, part.name, "run.2", ".run.1.mine.part", ".run.1.old")
            }
    assert names(tmp_path) == [".run.1.mine.part", "run.1", "run.2"]
    assert names(directory) == ["weights"]


def test_the_old_directory_is_restored_after_a_kill_between_the_renames(tmp_path):
    """It is complete under its hidden name, and a failed write leaves the restored one in place."""
    directory = tmp_path / "directory"
    aside = sibling_path(directory, "old")
    assert aside == tmp_path / ".directory.old"
    aside.mkdir()
    (aside / "file").touch()
    with atomic_directory(directory) as part:
        (part / "new").touch()
    assert names(tmp_path) == ["directory"]
    assert names(directory) == ["new"]


def test_check_absent(tmp_path):
    check_absent(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_absent(tmp_path / "empty")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for path in (tmp_path, tmp_path / "file", tmp_path / "link"):
        with pytest.raises(InputError, match=f"{path} already exists; choose another directory"):
            check_absent(path)


# ---- locks --------------------------------------------------------------------------------------

LOCK = """
import sys
from captioner.atomic_io import lock_file

with open(sys.argv[1], "a+b") as file:
    print(lock_file(file))
"""


def test_a_lock_keeps_other_processes_out_until_the_file_is_closed(tmp_path):
    path = tmp_path / "lock"
    with path.open("a+b") as file:
        assert lock_file(file)
        assert run_python(LOCK, path).communicate(timeout=60) == ("False\n", "")
    assert run_python(LOCK, path).communicate(timeout=60) == ("True\n", "")


def test_locks_on_windows(tmp_path, monkeypatch):
    """One byte far beyond the content is locked; the position in the file does not change."""
    locked = []

    def locking(descriptor, mode, count):
        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        if position in locked:
            raise PermissionError(13, "Permission denied")
        locked.append(position)
        assert (mode, count) == ("non-blocking", 1)

    monkeypatch.setattr(sys, "platform", "win32")
    fake = SimpleNamespace(locking=locking, LK_NBLCK="non-blocking")
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    with (tmp_path / "lock").open("w+b") as file:
        file.write(b"content")
        file.seek(3)
        assert lock_file(file)
        assert not lock_file(file)
        assert file.read() == b"tent"
        assert min(locked) > 2**20


WITHOUT = """
import sys

sys.modules["fcntl"] = sys.modules["resource"] = None
import captioner.captioner, captioner.checkpoints.runs, captioner.inference.jsonl_writer
import train
from captioner.devices import peak_memory

print(peak_memory(__import__("torch").device("cpu")))
"""


@pytest.mark.slow
def test_the_library_is_imported_without_the_modules_of_unix():
    out, errors = run_python(WITHOUT).communicate(timeout=120)
    assert (out, errors) == ("{'memory_mb': nan}\n", "")

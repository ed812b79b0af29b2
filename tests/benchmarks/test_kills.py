"""The program that kills training and damages files: its counts, and that it notices losses."""

import random
from pathlib import Path

import pytest

from benchmarks import kills
from captioner.checkpoints import checkpoint
from tests.support.processes import finish, start


@pytest.mark.slow
def test_counts_of_few_kills_and_files(tmp_path):
    command = ("-m", "benchmarks.kills", "--kills", "2", "--files", "8")
    printed = finish(start(*command, cwd=tmp_path)).splitlines()
    counts = {line[7:]: int(line[:6]) for line in printed if line[:6].strip().isdecimal()}
    assert counts["kills"] == 2
    assert counts["checkpoints lost"] == counts["runs that differ"] == 0
    assert counts["files"] == 8 == counts.get("loaded", 0) + counts.get("refused", 0)


def test_damage_changes_files_in_most_cases():
    content = bytes(range(256)) * 4
    draw = random.Random(0)
    damaged = [kills.damage(content, draw) for _ in range(100)]
    assert sum(each != content for each in damaged) > 90
    assert len(set(damaged)) > 90


def test_hangs_and_crashes_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.txt").write_text("content")

    def fail(error):
        def use(_):
            raise error

        return kills.outcome(Path("source"), use, False, random.Random(0))

    assert fail(TimeoutError()) == "hangs"
    assert fail(KeyError("x")) == "crashes: KeyError after damage to a.txt"
    assert fail(kills.InputError("x")) == "refused"


def test_a_lost_checkpoint_is_step_0(tmp_path):
    assert kills.newest_step(tmp_path) == 0
    checkpoint.save(tmp_path / "last", {}, lambda _: None, {}, {"progress": {"step": 7}})
    assert kills.newest_step(tmp_path) == 7
    (tmp_path / "last" / "model.safetensors").write_bytes(b"")
    assert kills.newest_step(tmp_path) == 0

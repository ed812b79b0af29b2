"""METEOR: the formula against its own program, and every way in which Java fails."""

import shutil
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from captioner.errors import InputError
from captioner.metrics import meteor
from captioner.metrics.captions import compute_scores
from tests.support import processes

HYPOTHESES = [["a", "dog", "runs"], []]
REFERENCES = [[["the", "dog"], ["a", "dog", "ran"]], [["grass"]]]
# The jar's counts for "a dog runs fast", "dogs ran in a grassy field" and "a café", each against
# two references, and its scores of each and of all three.
COUNTS = """
    4 3 1 1 2 2 1 1 0 0 0 0 0 0 0 0 0 0 0 0 1 3 3
    6 6 2 2 0 0 1 1 1 1 0 0 1 1 0 0 0 0 0 0 2 3 3
    2 3 1 0 1 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 1 1
"""
SCORES = [0.48704502558483637, 0.16593023686978642, 0.14545454545454545]
CORPUS_SCORE = 0.23722861275418222
# References by caption, and pycocoevalcap's Meteor scores.
OFFICIAL = {
    "a dog runs fast": ["a dog runs", "the dog runs fast"],
    "dogs ran in a grassy field": [
        "a dog runs over green grass",
        "two dogs are running in the grass quickly",
    ],
    "two men ride bikes": ["two men ride bikes"],
    "a café": ["a café | here"],
    "a small boy is playing with his ball": ["the sky is blue", "a kid plays with a ball"],
    "": ["a dog"],
}
OFFICIAL_EACH = [
    *(0.48704502558483637, 0.16593023686978642, 1.0),
    *(0.20996468660322, 0.3237923617619994, 0.0),
]
OFFICIAL_ALL = 0.3087298669723691


def test_the_formula_gives_the_scores_of_the_program() -> None:
    counts = np.array([line.split() for line in COUNTS.split("\n") if line.strip()], dtype=float)
    assert meteor.meteor_score(counts) == pytest.approx(100 * np.array([SCORES]).T, abs=1e-12)
    assert meteor.meteor_score(counts.sum(0)) == pytest.approx(100 * CORPUS_SCORE, abs=1e-12)
    assert meteor.meteor_score(np.zeros(meteor.COUNTS)) == 0


@pytest.mark.slow
@pytest.mark.java
@pytest.mark.skipif(shutil.which("java") is None, reason="no java on the PATH")
def test_same_as_pycocoevalcap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in an Italian locale, whose numbers have a comma; the package stays unchanged."""
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=it -Duser.country=IT")
    package = find_spec("pycocoevalcap")
    assert package is not None
    assert package.submodule_search_locations
    directory = Path(package.submodule_search_locations[0])
    before = sorted(directory.rglob("*"))
    split = {text: [reference.split() for reference in refs] for text, refs in OFFICIAL.items()}
    counts = meteor.meteor_counts([text.split() for text in split], list(split.values()))
    assert meteor.meteor_score(counts)[:, 0] == pytest.approx(
        100 * np.array(OFFICIAL_EACH), abs=1e-9
    )
    assert meteor.meteor_score(counts.sum(0)) == pytest.approx(100 * OFFICIAL_ALL, abs=1e-9)
    assert sorted(directory.rglob("*")) == before


# ---- Java that fails ----------------------------------------------------------------------------


@pytest.fixture
def java(tmp_path, monkeypatch):
    """Put a program called java on the PATH, given as the lines of a shell script."""

    def put(*lines: str, start: str = "#!/bin/sh\n") -> Path:
        program = tmp_path / "bin" / "java"
        program.parent.mkdir()
        program.write_text(start + "\n".join(lines) + "\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        return program

    return put


ONES = " ".join(["1.0"] * meteor.COUNTS)


def test_the_requests_to_java_and_its_output(java, tmp_path):
    java(
        f"echo \"$@\" > '{tmp_path}/arguments'",
        f"cat > '{tmp_path}/requests'",
        f"echo {ONES}; echo {ONES.replace('1.0', '2.0')}",
        "echo Picked up something >&2",
    )
    counts = meteor.meteor_counts(HYPOTHESES, REFERENCES)
    assert (counts[:, :20] == [[1.0] * 20, [2.0] * 20]).all()
    assert counts[0, 20] == 0
    assert counts[1, 20] == 2
    arguments = (tmp_path / "arguments").read_text()
    assert "-Duser.language=en -Duser.country=US" in arguments
    assert "-stdio -l en -norm" in arguments
    assert (tmp_path / "requests").read_text().split("\n") == [
        "SCORE ||| the dog ||| a dog ran ||| a dog runs",
        "SCORE ||| grass ||| ",
        "",
    ]


def test_a_caption_is_one_request_line_whatever_characters_it_has(java, tmp_path):
    java(f"cat > '{tmp_path}/requests'", *[f"echo {ONES}"] * 3)
    breaks = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
    captions = {1: "a dog".join(breaks), 2: "two ||| men", 3: ""}
    found = compute_scores(captions, {id: [breaks, "a\ndog"] for id in captions}, ["meteor"])
    assert len(found.per_image["METEOR"]) == 3
    assert (tmp_path / "requests").read_bytes().splitlines() == [
        b"SCORE |||  ||| a dog ||| " + b" ".join([b"a dog"] * (len(breaks) - 1)),
        b"SCORE |||  ||| a dog ||| two | | | men",
        b"SCORE |||  ||| a dog ||| ",
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["cat > /dev/null", "echo too small >&2", "exit 3"],
            "exited with status 3: too small; le",
        ),
        (
            ["echo Too small; echo Picked up options >&2; exit 1"],
            "exited with status 1: Too small;",
        ),
        (["exit 4"], "exited with status 4: it printed nothing; leave METEOR out"),
        (["kill -9 $$"], "exited with status -9"),
        (
            ["echo Error occurred", "echo Too small heap"],
            r"printed 2 lines .* 'Error occurred'; le",
        ),
        ([f"echo {ONES}"], "printed 1 lines for 2 images, the first of which is '1.0 1"),
        ([], "printed 0 lines for 2 images, the first of which is ''"),
        ([f"echo {ONES.replace('.', ',')}"] * 2, "the first of which is '1,0 1,0"),
        ([f"echo {ONES.replace('1.0', 'NaN')}"] * 2, "the first of which is 'NaN NaN"),
        ([f"echo {ONES[4:]}"] * 2, "printed 2 lines for 2 images"),
    ],
)
def test_java_that_fails_or_prints_something_else(java, lines, message):
    program = java(*lines)
    with pytest.raises(InputError, match=f"^METEOR failed: {program} .*{message}"):
        meteor.meteor_counts(HYPOTHESES, REFERENCES)


def test_java_that_hangs(java, monkeypatch):
    monkeypatch.setattr(meteor, "START_SECONDS", 0.1)
    java("exec sleep 60")
    with pytest.raises(InputError, match="did not finish within 0 s; leave METEOR out"):
        meteor.meteor_counts(HYPOTHESES, REFERENCES)


def test_a_java_started_by_a_script_is_killed_with_it(java, monkeypatch, tmp_path):
    monkeypatch.setattr(meteor, "START_SECONDS", 1.0)
    java("sleep 60 &", f"echo $! > '{tmp_path}/number'", "wait")
    with pytest.raises(InputError, match="did not finish within 1 s; leave METEOR out"):
        meteor.meteor_counts(HYPOTHESES, REFERENCES)
    place = Path("/proc", (tmp_path / "number").read_text().strip(), "stat")
    deadline = time.monotonic() + 30
    while place.exists() and place.read_text().split()[2] != "Z":  # Z: ended but not reaped
        assert time.monotonic() < deadline
        time.sleep(0.01)


ORPHAN = """
from captioner.metrics import meteor
meteor.meteor_counts([["a"]], [[["a"]]])
"""


def test_a_java_that_hangs_ends_with_its_parent(java, tmp_path):
    java(f"echo $$ > '{tmp_path}/number'", "sleep 60")
    parent = processes.start("-c", ORPHAN)
    number = tmp_path / "number"
    wait_until(lambda: number.exists() and number.read_text().strip())
    parent.kill()
    parent.communicate(timeout=10)  # the pipes are closed, so no child is left

    def has_ended():
        status = Path(f"/proc/{number.read_text().strip()}/stat")
        return not status.exists() or status.read_text().split()[2] == "Z"

    wait_until(has_ended)


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_java_that_is_not_a_program(java):
    java(start="nothing\0")
    with pytest.raises(InputError, match="java cannot be run: Exec format error"):
        meteor.meteor_counts(HYPOTHESES, REFERENCES)


def test_java_that_exits_without_reading(java):
    java("exit 5")
    with pytest.raises(InputError, match="status 5"):
        meteor.meteor_counts([["dog"] * 10] * 20_000, [[["dog"] * 10]] * 20_000)

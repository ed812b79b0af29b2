"""SPICE: finding Java 8, and the exchange with the program, played by a script.

The real program needs Java 8 and Stanford CoreNLP, which are rarely installed.
"""

import os
import stat
import sys
from pathlib import Path

import pytest

from captioner.errors import InputError
from captioner.metrics import spice as module
from captioner.metrics.spice import find_java_8, spice

PROGRAM = """#!{python}
import json, sys
if sys.argv[1] == "-version":
    print('openjdk version "{version}"', file=sys.stderr)
    raise SystemExit
if {fails}:
    print("Exception: no parser", file=sys.stderr)
    raise SystemExit(3)
rows = json.load(open(sys.argv[4]))
share = lambda row: len(set(row["test"].split()) & set(row["refs"][0].split())) / 4
all_of = lambda row: {{"All": {{"f": share(row) if row["test"] else "NaN"}}}}
scores = [{{"image_id": row["image_id"], "scores": all_of(row)}} for row in reversed(rows)]
json.dump(scores, open(sys.argv[sys.argv.index("-out") + 1], "w"))
"""


@pytest.fixture
def java(tmp_path, monkeypatch):
    """A function that installs a Java of a version as JAVA8_HOME, or on the PATH."""
    for name in ("JAVA8_HOME", "JAVA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    monkeypatch.setattr(module.Path, "glob", lambda *_: iter([Path("stanford-corenlp-3.6.0.jar")]))

    def install(version, fails=False):
        path = tmp_path / version / "bin" / "java"
        path.parent.mkdir(parents=True)
        path.write_text(PROGRAM.format(python=sys.executable, version=version, fails=fails))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("JAVA8_HOME", str(path.parents[1]))
        return str(path)

    return install


@pytest.mark.skipif(os.name == "nt", reason="the script is for POSIX")
def test_scores_keep_the_order_of_the_captions(java):
    path = java("1.8.0_392")
    assert find_java_8() == path
    found = spice(["a red dog", "", "blue"], [["a red dog"], ["a cat"], ["green"]])
    assert found == [75, 0, 0]


@pytest.mark.parametrize("version", ["17.0.15", "11.0.1", "1.7.0", "25"])
def test_other_versions_are_not_used(java, version):
    java(version)
    with pytest.raises(InputError, match="SPICE needs Java 8, and no other version"):
        find_java_8()


def test_a_failure_is_one_sentence(java):
    java("1.8.0_392", fails=True)
    with pytest.raises(InputError, match=r"exited with status 3: Exception: no parser; omit"):
        spice(["a"], [["b"]])


def test_missing_parser_files(java, monkeypatch):
    java("1.8.0_392")
    monkeypatch.setattr(module.Path, "glob", lambda *_: iter(()))
    with pytest.raises(InputError, match=r"SPICE needs Stanford CoreNLP 3\.6\.0"):
        spice(["a"], [["b"]])

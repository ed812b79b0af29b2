"""The Dockerfile copies what the installation needs, and starts the service with flags that exist.

Building the image needs Docker and the network; `tests/test_wheel.py` installs the same files.
"""

import json
import re
import shlex

from captioner.__main__ import parser
from tests.support.pages import ROOT

LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def arguments(instruction):
    return [
        line.removeprefix(instruction).split() for line in LINES if line.startswith(instruction)
    ]


def test_copied_files_exist_and_are_not_ignored():
    copied = [name for *names, _ in arguments("COPY ") for name in names]
    assert {"captioner", "setup.py", "setup.cfg", "pyproject.toml"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists()
        assert name not in IGNORED
    # What setup.cfg and setup.py read while the package is built.
    for name in re.findall(r"\b(README\.md|LICENSE)\b", (ROOT / "setup.cfg").read_text()):
        assert name in copied


def test_the_service_starts_as_the_page_says():
    entry = json.loads(next(each for each in LINES if each.startswith("ENTRYPOINT"))[11:])
    assert entry == ["captioner", "serve"]
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    runs = re.findall(r"^docker run .*? captioner (.*)$", page.replace("\\\n", ""), re.MULTILINE)
    assert runs
    for words in runs:
        parsed = parser().parse_args([*entry[1:], *shlex.split(words)])
        assert parsed.runs
        assert parsed.host == "0.0.0.0"  # of the container; docker publishes it on one address
    (port,) = arguments("EXPOSE ")
    assert all(f":{port[0]}" in line for line in LINES if line.startswith("HEALTHCHECK"))


def test_the_service_does_not_run_as_root():
    assert LINES.index("USER captioner") < next(
        i for i, line in enumerate(LINES) if line.startswith("ENTRYPOINT")
    )

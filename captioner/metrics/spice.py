"""SPICE, computed by the program that comes with pycocoevalcap, which needs Java 8.

Anderson et al. 2016. The program parses sentences, which takes about a second per image at first.
"""

import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import InputError
from .meteor import run_guarded

START_SECONDS, CAPTION_SECONDS = 120.0, 4.0
_VERSION = re.compile(r'version "(1\.8|8)[."]')


def find_java_8() -> str:
    """Return the path of a Java 8; raise InputError if there is none.

    JAVA8_HOME, JAVA_HOME, the PATH and the usual directories of Linux and macOS are searched.
    """
    for java in _candidates():
        try:
            done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.SubprocessError):
            continue
        if _VERSION.search(done.stderr + done.stdout):
            return java
    raise InputError(
        "SPICE needs Java 8, and no other version; install it and set JAVA8_HOME to its directory, "
        "or omit --spice"
    )


def _candidates() -> Iterator[str]:
    homes = [os.environ[name] for name in ("JAVA8_HOME", "JAVA_HOME") if os.environ.get(name)]
    for pattern in ("/usr/lib/jvm/*8*", "/Library/Java/JavaVirtualMachines/*8*/Contents/Home"):
        homes += map(str, sorted(Path("/").glob(pattern.lstrip("/"))))
    yield from (str(Path(home, "bin", "java")) for home in homes)
    if java := shutil.which("java"):
        yield java


def spice(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Return SPICE of each caption, 0-100: the F-score of its scene graph's tuples.

    It is 0 where the program computes NaN. The corpus score is the mean. Raises InputError if
    Java 8 or the parser's files are missing, or if the program fails or times out.
    """
    java = find_java_8()
    package = find_spec("pycocoevalcap")
    assert package is not None
    assert package.submodule_search_locations
    directory = Path(package.submodule_search_locations[0], "spice")
    if not list(directory.glob("lib/stanford-corenlp-*.jar")):
        raise InputError(
            f"SPICE needs Stanford CoreNLP 3.6.0, which is missing in {directory}; to download it, "
            "run python -c 'from pycocoevalcap.spice import get_stanford_models as g; "
            "g.get_stanford_models()'"
        )
    rows = [
        {"image_id": i, "test": text, "refs": list(own)}
        for i, (text, own) in enumerate(zip(hypotheses, references, strict=True))
    ]
    timeout = START_SECONDS + CAPTION_SECONDS * len(rows)
    with TemporaryDirectory() as temporary:
        given, found = Path(temporary, "in.json"), Path(temporary, "out.json")
        given.write_text(json.dumps(rows))
        command = [java, "-Xmx8G", "-jar", str(directory / "spice-1.0.jar"), str(given)]
        command += ["-cache", temporary, "-out", str(found), "-subset", "-silent"]
        try:
            status, _, errors = run_guarded(command, b"", timeout)
            content = json.loads(found.read_text())
        except subprocess.TimeoutExpired as error:
            raise InputError(
                f"SPICE failed: {java} did not finish within {timeout:.0f} s; omit --spice"
            ) from error
        except (OSError, ValueError) as error:
            lines = errors.decode(errors="replace").strip().splitlines()
            raise InputError(
                f"SPICE failed: {java} exited with status {status}: "
                f"{lines[-1] if lines else 'it wrote no scores'}; omit --spice"
            ) from error
    scores = {row["image_id"]: float(row["scores"]["All"]["f"]) for row in content}
    values = [100 * scores[i] for i in range(len(rows))]
    return [0.0 if math.isnan(value) else value for value in values]

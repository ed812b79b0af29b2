"""METEOR 1.5: counts from its Java program, and the score computed from them.

The program is the jar file that comes with pycocoevalcap; it is run once per corpus. Only METEOR
and SPICE need Java.

Shapes: N images, K counts.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..errors import InputError

# Java takes seconds to start and then scores about 200 captions per second.
START_SECONDS, CAPTION_SECONDS = 60.0, 0.1
COUNTS = 23
# A program that runs a command and ends with it. If its own parent, the first argument, ends, it
# kills its process group, which includes the command.
GUARD = """
import os, signal, subprocess, sys
try:
    process = subprocess.Popen(sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]} cannot be run: {error.strerror}")
while True:
    try:
        status = process.wait(0.2)
        if status < 0:
            os.kill(os.getpid(), -status)
        sys.exit(status)
    except subprocess.TimeoutExpired:
        if os.getppid() != int(sys.argv[1]):
            os.killpg(0, signal.SIGKILL)
"""

# Denkowski and Lavie 2014, section 2.2: the parameters for English.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])  # of exact, stem, synonym and paraphrase matches


def find_java() -> str:
    """Return the path of `java`; raise InputError if it is not on the PATH."""
    java = shutil.which("java")
    if java is None:
        raise InputError(
            "METEOR needs Java, but java is not on the PATH; install Java or leave METEOR out"
        )
    return java


def meteor_counts(
    hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> np.ndarray:
    """Return METEOR's counts (N, K) for each caption and its best-scoring reference.

    Captions are lists of words. Raises InputError if Java is missing, fails, times out or prints
    anything but numbers.
    """
    java = find_java()
    lines = (
        " ||| ".join(["SCORE", *map(" ".join, image_references), " ".join(words)])
        for words, image_references in zip(hypotheses, references, strict=True)
    )
    output = _run_jar(java, "".join(f"{line}\n" for line in lines), len(hypotheses)).splitlines()
    try:
        counts = np.array([line.split() for line in output], dtype=float)
    except ValueError:
        counts = np.empty(0)
    if counts.shape != (len(hypotheses), COUNTS) or not np.isfinite(counts).all():
        first_line = next(iter(output), "")[:80]
        raise InputError(
            f"METEOR failed: {java} printed {len(output)} lines for {len(hypotheses)} images, "
            f"the first of which is {first_line!r}; leave METEOR out"
        )
    identical = (counts[:, 20] == 1) & (counts[:, 21:23] == counts[:, 0:2]).all(1)
    counts[identical, 20] = 0  # METEOR does not penalise the single chunk of an exact match
    return counts


def _run_jar(java: str, requests: str, images: int) -> str:
    """Run the jar on the request lines and return its output."""
    package = find_spec("pycocoevalcap")
    assert package is not None
    assert package.submodule_search_locations
    jar = Path(package.submodule_search_locations[0], "meteor", "meteor-1.5.jar")
    timeout = START_SECONDS + CAPTION_SECONDS * images
    # In some other locales, the jar would print numbers with a decimal comma.
    locale = ("-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8")
    command = [java, "-Xmx2G", *locale, "-jar", str(jar), *"- - -stdio -l en -norm".split()]
    try:
        status, output, errors = run_guarded(command, requests.encode(), timeout)
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"METEOR failed: {java} did not finish within {timeout:.0f} s; leave METEOR out"
        ) from error
    if status:
        lines = (output + b"\n" + errors).decode(errors="replace").splitlines()
        messages = [line for line in lines if line.strip() and not line.startswith("Picked up ")]
        raise InputError(
            f"METEOR failed: {java} exited with status {status}: "
            f"{messages[-1] if messages else 'it printed nothing'}; leave METEOR out"
        )
    return output.decode(errors="replace")


def run_guarded(
    command: Sequence[str], requests: bytes, timeout: float
) -> tuple[int, bytes, bytes]:
    """Run a command and return its exit status, output and errors.

    requests: the input of the command. timeout: in seconds. The command and its child processes are
    killed on a timeout, which raises subprocess.TimeoutExpired, on an interrupt, and if this
    process is killed.
    """
    pipe = subprocess.PIPE
    guarded = [sys.executable, "-I", "-S", "-c", GUARD, str(os.getpid()), *command]
    with subprocess.Popen(
        guarded, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(requests, timeout)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # `java` may be a script that waits for Java
            raise
    return process.returncode, output, errors


def meteor_score(counts: np.ndarray) -> np.ndarray:
    """Compute METEOR (..., 1), 0-100, from the counts (..., K) of one image or of several, summed.

    See Denkowski and Lavie 2014, equations 1 to 4. The counts start with pairs for caption and
    reference: words; function words; and, for each of the four kinds of match, matched content
    words and matched function words. The last three are the number of chunks and a pair of the
    numbers of all matched words.
    """
    words, functions = counts[..., 0:2], counts[..., 2:4]
    kinds = counts[..., 4:20].reshape(*counts.shape[:-1], 4, 2, 2)  # kind, content/function, side
    kinds = DELTA * kinds[..., 0, :] + (1 - DELTA) * kinds[..., 1, :]
    matched = (kinds * WEIGHTS[:, None]).sum(-2)
    ratios = _divide(matched, DELTA * (words - functions) + (1 - DELTA) * functions)
    precision, recall = ratios[..., 0], ratios[..., 1]
    mean = _divide(precision * recall, ALPHA * precision + (1 - ALPHA) * recall)
    chunks, sides = counts[..., 20], counts[..., 21:23]
    penalty = GAMMA * _divide(chunks, sides.mean(-1)) ** BETA
    return 100.0 * (mean * (1 - penalty))[..., None]


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient, or the numerator (which is then 0) if the denominator is 0."""
    return numerator / np.where(denominator == 0, 1.0, denominator)

"""METEOR: what Java counts for each image, and the score of such counts; nothing else needs Java.

The program is the jar that pycocoevalcap brings, run once for a whole corpus. N images, K counts.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..errors import InputError

# Java takes seconds to start and reads about 200 captions a second after that.
START_SECONDS, CAPTION_SECONDS = 300.0, 0.1
COUNTS = 23

# Denkowski and Lavie 2014, the parameters of English: section 2.2.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])  # of a match of words, stems, synonyms, paraphrases


def find_java() -> str:
    """The `java` on the path, which may yet fail to run; raises InputError where there is none."""
    java = shutil.which("java")
    if java is None:
        raise InputError(
            "METEOR needs Java, and there is no java on the path; install one or leave METEOR out"
        )
    return java


def count(
    hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> np.ndarray:
    """What METEOR counts of lists of words (N, K), against the reference that scores best.

    Raises InputError where Java is missing, fails, hangs or answers with anything but numbers.
    """
    java = find_java()
    lines = (
        " ||| ".join(["SCORE", *map(" ".join, several), " ".join(words)])
        for words, several in zip(hypotheses, references, strict=True)
    )
    answers = _ask(java, "".join(f"{line}\n" for line in lines), len(hypotheses)).splitlines()
    try:
        counts = np.array([line.split() for line in answers], dtype=float)
    except ValueError:
        counts = np.empty(0)
    if counts.shape != (len(hypotheses), COUNTS) or not np.isfinite(counts).all():
        shown = next(iter(answers), "")[:80]
        raise InputError(
            f"METEOR failed: {java} gave {len(answers)} lines for {len(hypotheses)} images, "
            f"the first {shown!r}; leave METEOR out"
        )
    whole = (counts[:, 20] == 1) & (counts[:, 21:23] == counts[:, 0:2]).all(1)
    counts[whole, 20] = 0  # a caption that is its reference is not penalised, nor is it in sums
    return counts


def _ask(java: str, question: str, images: int) -> str:
    """What the jar answers, in English whatever the user's language is."""
    package = find_spec("pycocoevalcap")
    assert package is not None and package.submodule_search_locations
    jar = Path(package.submodule_search_locations[0], "meteor", "meteor-1.5.jar")
    limit = START_SECONDS + CAPTION_SECONDS * images
    locale = ("-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8")
    command = [java, "-Xmx2G", *locale, "-jar", str(jar), *"- - -stdio -l en -norm".split()]
    try:
        status, answer, complaint = _run(command, question.encode(), limit)
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"METEOR failed: {java} gave no answer in {limit:.0f} s; leave METEOR out"
        ) from error
    except OSError as error:
        raise InputError(f"METEOR failed: {java} cannot be run: {error.strerror}") from error
    if status:
        lines = (answer + b"\n" + complaint).decode(errors="replace").splitlines()
        said = [line for line in lines if line.strip() and not line.startswith("Picked up ")]
        raise InputError(
            f"METEOR failed: {java} ended with status {status}: "
            f"{said[-1] if said else 'it said nothing'}; leave METEOR out"
        )
    return answer.decode(errors="replace")


def _run(command: Sequence[str], question: bytes, limit: float) -> tuple[int, bytes, bytes]:
    """Exit status, output and errors; whatever ends the wait ends what the command started, too."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    ) as process:
        try:
            answer, complaint = process.communicate(question, limit)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # `java` may be a script that waits for Java
            raise
    return process.returncode, answer, complaint


def rate(counts: np.ndarray) -> np.ndarray:
    """METEOR 0-100 (..., 1) of counts of an image, or of their sums over images (..., K).

    Denkowski and Lavie 2014, equations 1 to 4. Counts are, of caption and reference each: words;
    function words; matched content and function words by kind of match; then the chunks that the
    matches form, and the words matched on either side.
    """
    words, functions = counts[..., 0:2], counts[..., 2:4]
    kinds = counts[..., 4:20].reshape(*counts.shape[:-1], 4, 2, 2)  # kind, content or not, side
    kinds = DELTA * kinds[..., 0, :] + (1 - DELTA) * kinds[..., 1, :]
    matched = (kinds * WEIGHTS[:, None]).sum(-2)
    shares = _divide(matched, DELTA * (words - functions) + (1 - DELTA) * functions)
    precision, recall = shares[..., 0], shares[..., 1]
    mean = _divide(precision * recall, ALPHA * precision + (1 - ALPHA) * recall)
    chunks, sides = counts[..., 20], counts[..., 21:23]
    penalty = GAMMA * _divide(chunks, sides.mean(-1)) ** BETA
    return 100.0 * (mean * (1 - penalty))[..., None]


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where there is nothing to divide by."""
    return part / np.where(whole == 0, 1.0, whole)

#!/bin/sh
# pycocoevalcap 1.2: captions that equal their only reference do not reach the highest score if they
# have fewer than four words: CIDEr falls by a quarter for each missing n-gram length, BLEU-4 to 0.03.
# Status 0 while that is so.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT INT TERM
cd "$directory"
python3 -m venv venv
venv/bin/python -m pip install --quiet pycocoevalcap==1.2 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import contextlib
import io
from importlib.metadata import version

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider

print("pycocoevalcap", version("pycocoevalcap"))
sets = {
    4: ["a red ball rolls", "the blue box falls", "one green hat lies"],
    3: ["a red ball", "the blue box", "one green hat"],
    2: ["red ball", "blue box", "green hat"],
    1: ["red", "blue", "green"],
}
seen = {}
for length, captions in sets.items():
    both = {number: [caption] for number, caption in enumerate(captions)}
    with contextlib.redirect_stdout(io.StringIO()):
        bleu = Bleu(4).compute_score(both, both)[0][3]
        cider = Cider().compute_score(both, both)[0]
    seen[length] = (round(bleu, 2), round(float(cider), 2))
    print(f"{length} words, each caption equal to its reference: BLEU-4 {bleu:.4f}, CIDEr {cider:.2f}")
expected = {4: (1.0, 10.0), 3: (0.03, 7.5), 2: (0.0, 5.0), 1: (0.0, 2.5)}
assert seen == expected, f"the behaviour has changed: {seen}"
PYTHON

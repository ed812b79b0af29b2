#!/bin/sh
# sentence-transformers 6.2.0: util.dot_score, and with it semantic_search, multiplies the int8
# embeddings of its own quantize_embeddings in int8, whose sums wrap round at 128, so that the hits
# are random, without an error or a warning. The same values as floats find themselves, as do the
# embeddings that were quantised. Status 0 while that is so.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT INT TERM
cd "$directory"
python3 -m venv venv
venv/bin/python -m pip install --quiet sentence-transformers==6.2.0 transformers==5.24.0 \
    torch==2.14.1 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import warnings

import numpy as np
import sentence_transformers
import torch
from sentence_transformers.util import dot_score, quantize_embeddings, semantic_search

warnings.simplefilter("error")  # there is none
print("sentence-transformers", sentence_transformers.__version__, "torch", torch.__version__)
print("expected by the docstring of dot_score: res[i][j] = dot_prod(a[i], b[j])")
embeddings = np.random.default_rng(0).normal(size=(1000, 384)).astype(np.float32)
embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
integers = quantize_embeddings(embeddings, "int8")
assert integers.dtype == np.int8
right = {}
sets = {"float32": embeddings, "int8": integers, "int8 as float32": integers.astype(np.float32)}
for name, rows in sets.items():
    hits = semantic_search(rows, rows, top_k=1, score_function=dot_score)
    right[name] = sum(hit[0]["corpus_id"] == query for query, hit in enumerate(hits))
    print(f"{name}: {right[name]} of 1000 vectors are their own nearest")
product = int(integers[0].astype(int) @ integers[0])
found = dot_score(integers[0], integers[0]).item()
print(f"dot product of an int8 vector with itself: {found}, expected {product}")
assert right["float32"] == right["int8 as float32"] == 1000, right
assert right["int8"] < 20, f"the behaviour has changed: {right}"
PYTHON

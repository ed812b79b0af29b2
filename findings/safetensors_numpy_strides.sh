#!/bin/sh
# safetensors 0.8.0: safetensors.numpy.save_file ignores the strides of an array, so that a transposed
# or sliced array is read back with other values, without an error. Status 0 while that is so.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT INT TERM
cd "$directory"
python3 -m venv venv
venv/bin/python -m pip install --quiet safetensors==0.8.0 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

print("safetensors", safetensors.__version__, "numpy", np.__version__)
matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
saved = {"transposed": matrix.T, "sliced": matrix[:, ::2], "contiguous": matrix}
save_file(saved, "arrays.safetensors")
read = load_file("arrays.safetensors")
for name in saved:
    print(f"{name}: saved {saved[name].tolist()}, read {read[name].tolist()}")
assert (read["contiguous"] == matrix).all()
changed = [name for name in saved if not np.array_equal(saved[name], read[name])]
assert changed == ["transposed", "sliced"], f"the behaviour has changed: {changed}"
PYTHON

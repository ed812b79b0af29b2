#!/bin/sh
# SciPy 1.17.1: cityblock, euclidean and chebyshev of scipy.spatial.distance subtract vectors of
# unsigned integers, such as grey levels or colour histograms, without a wider type: 10 - 200 counts
# as 66, so that 10 is nearer to 200 than to 50. cdist returns the distances of the docstrings.
# Status 0 while that is so.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT INT TERM
cd "$directory"
python3 -m venv venv
venv/bin/python -m pip install --quiet scipy==1.17.1 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import warnings

import numpy as np
import scipy
from scipy.spatial import distance

warnings.simplefilter("error")  # there is none
print("scipy", scipy.__version__, "numpy", np.__version__)
print("expected by the docstrings: the sum, norm and maximum of |u_i - v_i|, as of floats")
first, second, third = np.array([[10, 10, 10], [200, 200, 200], [50, 50, 50]], np.uint8)
seen = {}
for name in ("cityblock", "euclidean", "chebyshev"):
    metric = getattr(distance, name)
    to_second, to_third = float(metric(first, second)), float(metric(first, third))
    expected = distance.cdist([first], [second, third], name)[0]
    floats = [metric(first.astype(float), other.astype(float)) for other in (second, third)]
    np.testing.assert_allclose(expected, floats)
    print(
        f"{name}(10, 200) = {to_second:.1f} (expected and cdist: {expected[0]:.1f}), "
        f"{name}(10, 50) = {to_third:.1f} (expected and cdist: {expected[1]:.1f})"
    )
    seen[name] = bool(np.allclose([to_second, to_third], expected))
assert not any(seen.values()), f"the behaviour has changed; as documented: {seen}"
PYTHON

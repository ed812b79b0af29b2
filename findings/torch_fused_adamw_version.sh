#!/bin/sh
# torch 2.14.1 on a CPU: AdamW with fused=True changes parameters without counting it in their
# _version, which AdamW with fused=False does. Whatever is kept per version of a weight, such as a
# copy in bfloat16, becomes stale without a sign. Status 0 while that is so.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT INT TERM
cd "$directory"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.14.1
venv/bin/python - <<'PYTHON'
import torch
from torch import nn

print("torch", torch.__version__)
counted = {}
for fused in (False, True):
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=fused)
    weight.grad = torch.ones(3)
    value, version = weight.detach().clone(), weight._version
    optimizer.step()
    assert not torch.equal(weight, value), "the step changed nothing"
    counted[fused] = weight._version - version
    print(f"fused={fused}: {counted[fused]} changes counted")
assert counted[False] > 0, "the plain optimizer no longer counts"
assert counted[True] == 0, "the behaviour has changed: the fused optimizer counts its changes"
PYTHON

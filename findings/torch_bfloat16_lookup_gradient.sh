#!/bin/sh
# torch 2.14.1 on a CPU: the gradients of a row that is looked up several times are added up in
# bfloat16, in which 256 + 1 is 256. A word that occurs 1000 times in a batch gets the gradient of
# 256 occurrences from an nn.Embedding in bfloat16; so does, under autocast, a parameter in float32
# whose product is indexed. The look-up as a one-hot product, also in bfloat16, or in float16 has the
# gradient of all 1000. Status 0 while that is so.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT INT TERM
cd "$directory"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.14.1
venv/bin/python - <<'PYTHON'
import torch
import torch.nn.functional as F
from torch import nn

print("torch", torch.__version__)
print("expected by the docstring of nn.Embedding: the sum over the occurrences, here 1000, as only")
print("scale_grad_by_freq divides gradients by the frequency of a word")
words = torch.zeros(1000, dtype=torch.long)
seen = {}
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    embedding = nn.Embedding(2, 1, dtype=dtype)
    embedding(words).sum().backward()
    seen[f"nn.Embedding, {dtype}"] = embedding.weight.grad[0].item()
    weight = torch.ones(2, 1, dtype=dtype, requires_grad=True)
    (F.one_hot(words, 2).to(dtype) @ weight).sum().backward()
    seen[f"one-hot product, {dtype}"] = weight.grad[0].item()
for enabled in (False, True):
    linear = nn.Linear(1, 1, bias=False)
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        projected = linear(torch.ones(2, 1))
        projected[words].sum().backward()
    seen[f"indexed product of float32, autocast {enabled}"] = linear.weight.grad.item()
for name, gradient in seen.items():
    print(f"{name}: gradient {gradient:g}")
lost = {name for name, gradient in seen.items() if gradient == 256}
assert set(seen.values()) == {256.0, 1000.0}, f"the behaviour has changed: {seen}"
assert lost == {
    "nn.Embedding, torch.bfloat16",
    "indexed product of float32, autocast True",
}, f"the behaviour has changed: {seen}"
PYTHON

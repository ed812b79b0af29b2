#!/bin/sh
# torch 2.14.1 on an x86 CPU without AVX-512: under autocast in bfloat16, linear layers, convolutions
# and GRUs run, but an LSTM raises RuntimeError, with and without gradients, for a tensor and for a
# packed sequence, since oneDNN has no such primitive there and torch does not fall back to its own
# loop. Status 0 while that is so, and 2 on a CPU on which it cannot be seen.
set -eu
grep -q avx512 /proc/cpuinfo && { echo "needs an x86 CPU without AVX-512"; exit 2; }
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT INT TERM
cd "$directory"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.14.1
venv/bin/python - <<'PYTHON'
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

print("torch", torch.__version__, torch.backends.cpu.get_cpu_capability())
print("expected: autocast supports nn.LSTM on a CPU, or leaves it in float32")
steps = torch.ones(2, 3, 4)
modules = {
    "linear": (nn.Linear(4, 4), steps),
    "convolution": (nn.Conv1d(3, 4, 1), steps),
    "GRU": (nn.GRU(4, 4, batch_first=True), steps),
    "LSTM, packed": (nn.LSTM(4, 4, batch_first=True), pack_sequence(list(steps))),
    "LSTM": (nn.LSTM(4, 4, batch_first=True), steps),
}
failed = {}
for grad in (True, False):
    for name, (module, inputs) in modules.items():
        try:
            with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16):
                module(inputs)
        except RuntimeError as error:
            failed[name, grad] = str(error)
        print(f"{name}, gradients {grad}: {failed.get((name, grad), 'runs')[:120]}")
assert {name for name, _ in failed} == {"LSTM", "LSTM, packed"}, failed
assert len(failed) == 4, f"the behaviour has changed: {failed}"
assert all("LSTM forward" in message for message in failed.values()), failed
PYTHON

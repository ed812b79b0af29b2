#!/bin/sh
# torch 2.14.1 and timm 1.0.31: timm's BatchNormAct2d is a torch.nn.BatchNorm2d that also applies an
# activation. fuse_conv_bn_eval of torch accepts it and returns a convolution without the activation,
# without a warning, so that outputs become negative where a ReLU was. Status 0 while that is so.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT INT TERM
cd "$directory"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.14.1 torchvision==0.29.1 timm==1.0.31
venv/bin/python - <<'PYTHON'
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

print("torch", torch.__version__, "timm", timm.__version__)
torch.manual_seed(0)
convolution, norm = nn.Conv2d(3, 4, 1).eval(), BatchNormAct2d(4, act_layer=nn.ReLU).eval()
assert isinstance(norm, nn.BatchNorm2d)
image = torch.randn(1, 3, 8, 8)
with torch.no_grad():
    expected = norm(convolution(image))
    fused = fuse_conv_bn_eval(convolution, norm)(image)
print(f"smallest output: {expected.min():.3f}, fused: {fused.min():.3f}")
assert expected.min() == 0, "the layer has no activation"
assert fused.min() < 0, "the behaviour has changed: the fused layer keeps the activation"
torch.testing.assert_close(fused.relu(), expected)  # all else is right
PYTHON

"""Image encoders: torchvision CNNs cut before global pooling, timm networks, and a small CNN.

Shapes: B images, S image side length, D channels, (h, w) grid.
"""

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..data.images import Transform
from ..errors import InputError
from ..meta import on_meta_device
from ..pretrained import find_pretrained
from .cpu_layers import CPULayers
from .light_torchvision import torchvision
from .options import SMALL_CNN, TIMM, EncoderOptions
from .receptive_field import ReceptiveField, measure_receptive_field
from .timm_backbones import build_timm, is_timm, timm_transform
from .weights import load_run_weights, load_weights

INCEPTIONS = ("googlenet", "inception_v3")


class SmallCNN(nn.Sequential):
    """Five convolutions with max pooling to stride 16, small enough to train on a CPU.

    Unlike strided convolutions, pooling keeps each cell's receptive field centred on the square of
    pixels that the cell covers, and the network learns shapes in a fraction of the steps. The last
    layer also receives the coordinates of each cell: a network this shallow cannot infer them from
    the padding at the borders, as deep networks do.
    """

    def __init__(self, channels: int = 128) -> None:
        widths = (3, 16, 32, 64, channels)
        pooled = [_block(i, o, nn.MaxPool2d(2)) for i, o in pairwise(widths)]
        last = _block(channels + 2, channels, nn.Identity())
        super().__init__(*pooled, nn.Sequential(Coordinates(), last))


def _block(inputs: int, outputs: int, pool: nn.Module) -> nn.Sequential:
    """Build a block of convolution, pooling, batch norm and ReLU; pooling first saves time."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, pool, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Coordinates(nn.Module):
    """Appends each cell's x and y, both in [-2, 2]: (B, D, h, w) -> (B, D + 2, h, w)."""

    def forward(self, features: Tensor) -> Tensor:
        h, w = features.shape[-2:]
        x = torch.linspace(-2, 2, w, device=features.device, dtype=features.dtype)
        y = torch.linspace(-2, 2, h, device=features.device, dtype=features.dtype)
        grid = torch.stack([x.expand(h, w), y[:, None].expand(h, w)])
        return torch.cat([features, grid.expand(features.shape[0], 2, h, w)], dim=1)


class Recentre(nn.Module):
    """Changes the normalisation from ImageNet's to mean 0.5 and std 0.5, as Inception expects."""

    def forward(self, images: Tensor) -> Tensor:
        mean = images.new_tensor([0.485, 0.456, 0.406])[:, None, None]
        std = images.new_tensor([0.229, 0.224, 0.225])[:, None, None]
        return (images * std + mean - 0.5) / 0.5


class Encoder(nn.Module):
    """Encodes images (B, 3, S, S) as feature maps (B, D, h, w), where h = w = S / stride.

    If S / stride is not an integer, the result depends on the network's padding; networks with
    little padding (alexnet, inception_v3) have one or two fewer cells.

    channels: D. stride: pixels per cell. offset: distance from the centre of the square of pixels
    that a cell covers to the centre of its receptive field, in cells, to the right and down. It is
    0 for networks that downsample by pooling, and about -0.5 for networks that downsample by
    convolutions with symmetric padding, such as ResNets. stages: stage of each layer; stage s has
    one cell per 2^(s+1) pixels, so that stage 4 is the last in a network of stride 32; networks of
    timm are a single stage, 0. trained_from: first trained stage; None freezes all stages. Frozen
    stages have no gradients, and their batch norms keep their statistics even after train().
    pretrained: whether the weights were trained before; if so, batch norms keep their statistics in
    trained stages as well.
    """

    def __init__(
        self,
        name: str,
        layers: nn.Sequential,
        *,
        trained_from: int | None = None,
        pretrained: bool = False,
        field: ReceptiveField | None = None,
    ) -> None:
        """Wrap layers; field: their receptive field, which is measured if it is None."""
        super().__init__()
        self.name = name
        self.layers = layers
        self._fold: tuple[object, Callable[[Tensor], Tensor]] | None = None
        self.trained_from = trained_from
        self.pretrained = pretrained
        # Only torchvision defines each batch norm right after its convolution.
        self._can_fold = field is None
        field = field or measure_receptive_field(name, layers)
        self.stages, self.channels, self.stride, self.offset = field
        if trained_from is not None and not 0 <= trained_from <= max(self.stages):
            last = max(self.stages)
            allowed = f"a stage of {name}, from 0 to {last}"
            if not last:
                allowed = f"0, the only stage of {name}"
            raise InputError(f"--fine-tune-encoder must be {allowed}, got {trained_from}")
        for stage, layer in zip(self.stages, layers, strict=True):
            layer.requires_grad_(self._is_trained(stage))
        self.train()

    @property
    def frozen(self) -> bool:
        """Whether all stages are frozen."""
        return self.trained_from is None

    def _is_trained(self, stage: int) -> bool:
        return self.trained_from is not None and stage >= self.trained_from

    def train(self, mode: bool = True) -> "Encoder":
        super().train(mode)
        for stage, layer in zip(self.stages, self.layers, strict=True):
            if not self._is_trained(stage):
                layer.eval()
            elif self.pretrained:
                for module in layer.modules():
                    if isinstance(module, nn.modules.batchnorm._BatchNorm):
                        module.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            if not self._can_fold:
                features: Tensor = self.layers(images)
            elif torch.is_grad_enabled() or any(layer.training for layer in self.layers):
                # The weights may change, and fused optimisers do not update _version.
                self._fold = None
                features = self.layers(images)
            elif not len(images):
                features = self.layers(images)
            else:
                features = self._folded(images.device)(images)
        return features

    def _folded(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """Return a copy of the layers for inference, rebuilt if a weight or precision has changed.

        Its batch norms are folded; on a CPU, its convolutions are fused.
        """
        owners = [(m._parameters, m._buffers) for m in self.layers.modules()]
        values = [v for both in owners for of in both for v in of.values() if v is not None]
        version = [(v.data_ptr(), 0 if v.is_inference() else v._version) for v in values]
        dtype = values[0].dtype
        if device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
        fold = self._fold  # other threads may replace it
        if fold is None or fold[0] != (dtype, version):
            layers = fold_batch_norms(self.layers)
            is_cpu = device.type == "cpu"
            fold = (dtype, version), CPULayers(layers, self.stages, dtype) if is_cpu else layers
            self._fold = fold
        return fold[1]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the copy for inference, which holds weights in a layout of this machine."""
        return {**self.__dict__, "_fold": None}

    def inference_layers(self) -> nn.Sequential:
        """Return a copy of the layers for inference, with batch norms folded where possible."""
        return fold_batch_norms(self.layers) if self._can_fold else copy.deepcopy(self.layers)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the network's name and of the names and values of its weights."""
        digest = hashlib.sha256(self.name.encode())
        for key, value in self.state_dict().items():
            digest.update(key.encode())
            digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def fold_batch_norms(layers: nn.Sequential) -> nn.Sequential:
    """Return a copy for eval mode in which batch norms are folded into their convolutions.

    The outputs differ only by rounding. A batch norm belongs to the convolution defined immediately
    before it, as in all torchvision networks; other batch norms are kept.
    """
    # Inference tensors would make the copy useless outside inference mode.
    with torch.inference_mode(False), torch.no_grad():
        folded = copy.deepcopy(layers)
        for parent in list(folded.modules()):
            for (before, convolution), (name, norm) in pairwise(list(parent.named_children())):
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    setattr(parent, before, fuse_conv_bn_eval(convolution, norm))
                    setattr(parent, name, nn.Identity())
    return folded.requires_grad_(False).to(memory_format=torch.channels_last)


def build_encoder(
    name: str,
    weights: str | None = None,
    *,
    fine_tune_from: int | None = None,
    pretrained: bool = False,
) -> Encoder:
    """Build the encoder `name`: a torchvision CNN classifier, "timm:NAME" or "small_cnn".

    weights: None for random weights; the name of weights published by torchvision or timm
    ("IMAGENET1K_V1", "DEFAULT"), which are downloaded; a local .pth or .safetensors file with the
    parameter names of torchvision or timm; the directory of a run or checkpoint with the same
    encoder; or the name of a model that comes with the package, with the same encoder.
    fine_tune_from: first trained stage. None freezes all stages, except that a small_cnn without
    weights is trained entirely, since its random features carry little information.
    pretrained: whether the caller will load weights; if so, the encoder is treated as pretrained.
    Raises InputError for an unknown name, a network without a square feature map, a stage that it
    does not have, and weights that cannot be read or downloaded or do not fit the network.
    """
    pretrained = pretrained or weights is not None
    if weights is not None and (directory := find_pretrained(weights)):
        weights = str(directory)
    if is_timm(name):
        from_run = weights is not None and Path(weights).is_dir()
        layers, field = build_timm(name, None if from_run else weights)
        if from_run:
            load_run_weights(name, layers, Path(str(weights)))
        return Encoder(
            name, layers, trained_from=fine_tune_from, pretrained=pretrained, field=field
        )
    if name == SMALL_CNN:
        layers = SmallCNN()
        whole: nn.Module = layers
        if not pretrained and fine_tune_from is None:
            fine_tune_from = 0
    else:
        whole = _torchvision_model(name)
        layers = _cut_before_pooling(name, whole)
    if weights is not None and Path(weights).is_dir():
        load_run_weights(name, layers, Path(weights))
    elif weights is not None:
        load_weights(name, whole, layers, weights)
    return Encoder(name, layers, trained_from=fine_tune_from, pretrained=pretrained)


def encoder_transform(options: EncoderOptions) -> Transform:
    """Return the transform of the images of a configured encoder."""
    if is_timm(options.encoder):
        return timm_transform(options.encoder, options.image_size)
    return Transform(options.image_size)


def check_encoder(options: EncoderOptions, pretrained: bool = False) -> None:
    """Raise InputError as `build_encoder` would, without allocating memory for the encoder.

    The weights are read, and downloaded if they are named, but no random numbers are drawn.
    """
    with on_meta_device():
        build_encoder(
            options.encoder,
            options.encoder_weights,
            fine_tune_from=options.fine_tune_encoder,
            pretrained=pretrained,
        )


def _torchvision_model(name: str) -> nn.Module:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise InputError(
            f"unknown encoder {name!r}; choose {SMALL_CNN}, {TIMM}NAME or one of {', '.join(known)}"
        )
    options = {"init_weights": False} if name in INCEPTIONS else {}
    device = torch.get_default_device()
    # RegNets compute their widths with tensors, which have no values on the device "meta".
    with torch.device("cpu") if name.startswith("regnet") else nullcontext():
        model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return model.to(device) if name.startswith("regnet") else model


def _cut_before_pooling(name: str, model: nn.Module) -> nn.Sequential:
    """Return the layers of a torchvision classifier up to its global pooling."""
    features = getattr(model, "features", None)
    if isinstance(features, nn.Sequential):
        layers = list(features)
        if name.startswith("densenet"):
            layers.append(nn.ReLU(inplace=True))  # its forward() applies it after `features`
        return nn.Sequential(*layers)
    layers = list(_layers_before_pooling(model))
    if name in INCEPTIONS:
        layers.insert(0, Recentre())
    return nn.Sequential(*layers)


def _layers_before_pooling(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the children in order up to the global pooling, without auxiliary classifiers."""
    for label, child in model.named_children():
        if label in ("avgpool", "classifier", "fc", "head", "heads"):
            return
        # In MNASNet and RegNet, this child contains all stages and would count as a single stage.
        if label in ("layers", "trunk_output"):
            yield from child.children()
        elif not label.lower().startswith("aux"):
            yield child

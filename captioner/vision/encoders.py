"""Images to feature maps: any torchvision CNN cut before pooling, and the small one of our own.

Nothing here knows captions. Shapes: B images, S image side, D channels, h, w grid.
"""

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import InputError
from ..options import check_at_least, option
from .receptive_field import measure
from .weights import load_weights

SMALL_CNN = "small_cnn"
INCEPTIONS = ("googlenet", "inception_v3")


@dataclass(frozen=True)
class EncoderOptions:
    """Which CNN, where its weights come from, and what of it is trained."""

    encoder: str = option(SMALL_CNN, "small_cnn or the name of a torchvision CNN")
    encoder_weights: str | None = option(None, "a torchvision weights name, .pth or .safetensors")
    fine_tune_encoder: int | None = option(None, "train the encoder from this stage (0-4) on")
    image_size: int = option(224, "side in pixels to which images are squashed")

    def __post_init__(self) -> None:
        check_at_least(self, 32, "image_size")

    @property
    def trains(self) -> bool:
        """Whether any of the encoder is trained: when asked for, and a small_cnn from scratch."""
        from_scratch = self.encoder == SMALL_CNN and self.encoder_weights is None
        return self.fine_tune_encoder is not None or from_scratch


class SmallCNN(nn.Sequential):
    """Five convolutions and a stride of 16 by max pooling, to be learned from scratch on a CPU.

    Pooling, unlike strided convolutions, keeps each cell's view centred on the square of pixels
    that the cell stands for, and learns shapes in a fraction of the steps. The last layer is told
    where each cell is, since a net this shallow cannot find out from its borders, as deep ones do.
    """

    def __init__(self, channels: int = 128) -> None:
        widths = (3, 16, 32, 64, channels)
        pooled = [_block(i, o, nn.MaxPool2d(2)) for i, o in pairwise(widths)]
        last = _block(channels + 2, channels, nn.Identity())
        super().__init__(*pooled, nn.Sequential(Coordinates(), last))


def _block(inputs: int, outputs: int, pool: nn.Module) -> nn.Sequential:
    """Pooling comes before the normalisation, which then has a quarter of the work."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, pool, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Coordinates(nn.Module):
    """Append two channels with each cell's x and y in [-2, 2]: (B, D, h, w) -> (B, D+2, h, w)."""

    def forward(self, features: Tensor) -> Tensor:
        h, w = features.shape[-2:]
        x = torch.linspace(-2, 2, w, device=features.device, dtype=features.dtype)
        y = torch.linspace(-2, 2, h, device=features.device, dtype=features.dtype)
        grid = torch.stack([x.expand(h, w), y[:, None].expand(h, w)])
        return torch.cat([features, grid.expand(features.shape[0], 2, h, w)], dim=1)


class Recentre(nn.Module):
    """From ImageNet's mean and deviation to 0.5 and 0.5, which the Inception networks expect."""

    def forward(self, images: Tensor) -> Tensor:
        mean = images.new_tensor([0.485, 0.456, 0.406])[:, None, None]
        std = images.new_tensor([0.229, 0.224, 0.225])[:, None, None]
        return (images * std + mean - 0.5) / 0.5


class Encoder(nn.Module):
    """Pixels (B, 3, S, S) -> feature map (B, D, h, w), where h = w = S / stride.

    Where that is no whole number the network's padding decides; one that pads little (alexnet,
    inception_v3) has a cell or two less.

    channels: D. stride: pixels per cell. offset: how far the middle of what a cell sees lies from
    the middle of its square of pixels, in cells, to the right and down: 0 where the network halves
    by pooling, about -0.5 where it does by convolutions whose padding is the same on both sides, as
    ResNets do. stages: the parts of the network by resolution; stage s
    works at one cell per 2^(s+1) pixels, so that stage 4 is the last of a stride-32 network.
    Stages below `trained_from` are frozen: no gradients, and batch norm keeps its statistics even
    inside train(). `trained_from` None freezes all. Where the network came with weights of its
    own (`pretrained`), batch norm keeps its statistics in the trained stages too.
    """

    def __init__(
        self,
        name: str,
        layers: nn.Sequential,
        *,
        trained_from: int | None = None,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.layers = layers
        self._fold: tuple[list[tuple[int, int]], nn.Sequential] | None = None
        self.trained_from = trained_from
        self.pretrained = pretrained
        self.stages, self.channels, self.stride, self.offset = measure(name, layers)
        if trained_from is not None and not 0 <= trained_from <= max(self.stages):
            raise InputError(
                f"--fine-tune-encoder must be a stage of {name}, from 0 to {max(self.stages)}, "
                f"got {trained_from}"
            )
        for stage, layer in zip(self.stages, layers, strict=True):
            layer.requires_grad_(self._is_trained(stage))
        self.train()

    @property
    def frozen(self) -> bool:
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
            if torch.is_grad_enabled() or any(layer.training for layer in self.layers):
                self._fold = None  # the weights may change now, and not all writes are counted
                return self.layers(images)
            return self._folded()(images)

    def _folded(self) -> nn.Sequential:
        """A copy of the layers without their batch norms, made anew when any weight has changed."""
        values = [*self.layers.parameters(), *self.layers.buffers()]
        version = [(v.data_ptr(), 0 if v.is_inference() else v._version) for v in values]
        if self._fold is None or self._fold[0] != version:
            self._fold = version, fold_batch_norms(self.layers)
        return self._fold[1]

    def fingerprint(self) -> str:
        """SHA-256 over names and values of the weights: equal weights, equal fingerprint."""
        digest = hashlib.sha256(self.name.encode())
        for key, value in self.state_dict().items():
            digest.update(key.encode())
            digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def fold_batch_norms(layers: nn.Sequential) -> nn.Sequential:
    """A copy, for eval mode, in which every convolution does its batch norm's work as well.

    It computes the same but for rounding. A batch norm belongs to the convolution defined right
    before it, as in all of torchvision's networks; others stay.
    """
    with torch.inference_mode(False), torch.no_grad():  # an ordinary copy, whoever asks first
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
    """The encoder called `name`: a classifier torchvision knows, or "small_cnn".

    weights: None for random ones, a torchvision weights name ("IMAGENET1K_V1", "DEFAULT": this
    downloads) or a local .pth / .safetensors file with torchvision's names for the values.
    fine_tune_from: the first stage that is trained; None freezes all, except that a small_cnn
    without weights is always trained whole, since random features of it describe little.
    pretrained: the caller has weights for it, which make it one with weights.
    Raises InputError for an unknown name, a network that is not a CNN, or weights that do not fit.
    """
    pretrained = pretrained or weights is not None
    if name == SMALL_CNN:
        layers: nn.Sequential = SmallCNN()
        whole: nn.Module = layers
        if not pretrained and fine_tune_from is None:
            fine_tune_from = 0
    else:
        whole = _torchvision_model(name)
        layers = _cut_before_pooling(name, whole)
    if weights is not None:
        load_weights(name, whole, layers, weights)
    return Encoder(name, layers, trained_from=fine_tune_from, pretrained=pretrained)


def _torchvision_model(name: str) -> nn.Module:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise InputError(
            f"unknown encoder {name!r}; choose {SMALL_CNN} or one of {', '.join(known)}"
        )
    options = {"init_weights": False} if name in INCEPTIONS else {}
    if name.startswith("regnet"):  # reckons its widths with tensors, which "meta" cannot
        device = torch.get_default_device()
        with torch.device("cpu"):
            return torchvision.models.get_model(name, weights=None).to(device)
    return torchvision.models.get_model(name, weights=None, **options)


def _cut_before_pooling(name: str, model: nn.Module) -> nn.Sequential:
    """The convolutional trunk of a torchvision classifier as a list of layers."""
    features = getattr(model, "features", None)
    if isinstance(features, nn.Sequential):
        layers = list(features)
        if name.startswith("densenet"):
            layers.append(nn.ReLU(inplace=True))  # its forward() does this after `features`
        return nn.Sequential(*layers)
    layers = list(_layers_before_pooling(model))
    if name in INCEPTIONS:
        layers.insert(0, Recentre())
    return nn.Sequential(*layers)


def _layers_before_pooling(model: nn.Module) -> Iterator[nn.Module]:
    """Children in order, up to the global pooling; those that only training uses are left out."""
    for label, child in model.named_children():
        if label in ("avgpool", "classifier", "fc", "head", "heads"):
            return
        if label in ("layers", "trunk_output"):  # all of a MNASNet, nearly all of a RegNet
            yield from child.children()
        elif not label.lower().startswith("aux"):
            yield child

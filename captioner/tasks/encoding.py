"""The encoder of a run, and the images or stored features of its splits."""

from dataclasses import dataclass

import torch

from .. import distributed
from ..data.dataset import Example
from ..data.sources import ImageSource, Source
from ..distributed import say
from ..vision.encoders import Encoder, build_encoder
from ..vision.feature_store import FeatureStore, Runtime
from .options import OptionGroups
from .task import JobInputs


@dataclass(frozen=True)
class SplitData:
    """The examples of a split and the source of their images or features, in the same order."""

    examples: list[Example]
    images: Source


def build_configured_encoder(groups: OptionGroups) -> Encoder:
    """Seed torch with the run's seed, and build the encoder that the options describe.

    Prints a note if it is frozen with random weights.
    """
    options, has_start = groups.encoder, groups.run.start_from is not None
    torch.manual_seed(groups.training.seed)
    encoder = build_encoder(
        options.encoder,
        options.encoder_weights,
        fine_tune_from=options.fine_tune_encoder,
        pretrained=has_start,
    )
    if encoder.frozen and not encoder.pretrained:
        say(f"note: {options.encoder} is frozen with random weights; pass --encoder-weights")
    return encoder


def open_split(
    encoder: Encoder, examples: list[Example], inputs: JobInputs, kind: str
) -> SplitData:
    """Return the examples with stored features if the encoder is frozen, otherwise with images.

    kind: "maps" or "pooled", as in `FeatureStore.open`. Missing features are computed. The encoder
    must be on inputs.device, and every process must call this.
    """
    paths = [example.path for example in examples]
    files = ImageSource(paths, inputs.transform, keeps=not encoder.frozen)
    if not encoder.frozen:
        return SplitData(examples, files)

    options = inputs.options.data
    store = FeatureStore(options.cache, encoder, inputs.transform)
    runtime = Runtime(inputs.device, options.workers)
    if distributed.is_first():  # computes the features before the other processes read them
        store.open_files(files, runtime, kind)
    distributed.barrier(features=True)
    return SplitData(examples, store.open_files(files, runtime, kind))

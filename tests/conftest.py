"""What several test modules share: one thread, a tiny encoder, tiny models, batches.

Every process has one thread, also those that tests start, since several processes run tests.
"""

import os
from itertools import pairwise

import pytest
import torch
from torch import nn

from captioner.data import batches
from captioner.data.sources import FunctionSource
from captioner.models.captioning.build import build_model
from captioner.models.captioning.options import ModelOptions
from captioner.text.collate import pad_captions
from captioner.text.vocabulary import Vocabulary
from captioner.vision.encoders import Encoder
from tests.support.words import WORDS

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def vocabulary():
    return Vocabulary(WORDS)


@pytest.fixture(params=[False, True], ids=["show-and-tell", "attention"])
def attention(request):
    """Tests that use this run once for each of the two models."""
    return request.param


@pytest.fixture
def tiny_encoder():
    """Three small convolutions, stages 0, 1 and 2: (B, 3, 32, 32) -> (B, 10, 4, 4)."""

    def build(trained_from=None, pretrained=False, seed=0):
        torch.manual_seed(seed)
        widths = (3, 6, 8, 10)
        blocks = [
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU())
            for i, o in pairwise(widths)
        ]
        layers = nn.Sequential(*blocks)
        return Encoder("tiny", layers, trained_from=trained_from, pretrained=pretrained)

    return build


@pytest.fixture
def tiny_model(tiny_encoder):
    """A small model over WORDS that has opinions: its weights are larger than at a real start."""

    def build(attention, *, trained_from=None, seed=0, **options):
        sizes = {"embedding_size": 9, "hidden_size": 11, "attention_size": 7, "dropout": 0.0}
        sizes["annotation_size"] = 10
        encoder = tiny_encoder(trained_from, seed=seed)
        options = ModelOptions(attention=attention, **sizes | options)
        model = build_model(encoder, len(Vocabulary(WORDS)), options)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if not name.startswith("encoder."):
                    parameter.copy_(torch.randn_like(parameter) * 0.6)
        return model

    return build


@pytest.fixture
def features():
    """Feature maps (B, 10, 4, 3) of any number of images, each unlike the others."""

    def draw(images, seed=0):
        generator = torch.Generator().manual_seed(seed)
        mean = torch.randn(images, 10, 1, 1, generator=generator)
        return mean + torch.randn(images, 10, 4, 3, generator=generator)

    return draw


@pytest.fixture
def make_batch(features):
    """A Batch of captions given as lists of words' tokens, over random source or maps."""

    def build(captions, images=False, seed=0):
        whole = [
            sorted(([1, *caption, 2] for caption in texts), key=len, reverse=True)
            for texts in captions
        ]
        if images:
            generator = torch.Generator().manual_seed(seed)
            values = torch.rand(len(captions), 3, 32, 32, generator=generator)
        else:
            values = features(len(captions), seed)
        source = FunctionSource(lambda indices: values[list(indices)], are_features=not images)
        numbers = range(len(captions))
        return batches.make_batch(source, numbers, numbers, pad_captions(whole))

    return build

"""Batches: every image once, little padding, the same order in every process."""

import random
from dataclasses import replace

import pytest
import torch

from captioner.data import batches
from captioner.data.batches import (
    MAX_WORDS,
    Batch,
    Distillation,
    Rollouts,
    encode_captions,
    epoch_order,
)
from captioner.data.dataset import Example
from captioner.data.sources import FunctionSource
from captioner.errors import InputError
from captioner.text.collate import pad_captions


def example(*captions):
    return Example(0, "none", captions, "train")


def of_length(*lengths):
    """The captions of one image, with these numbers of words."""
    return [[1, *[4] * length, 2] for length in lengths]


@pytest.fixture
def captions():
    """Five captions of 3 to 30 words for each of 700 images."""
    rng = random.Random(0)
    lengths = [sorted((rng.randint(3, 30) for _ in range(5)), reverse=True) for _ in range(700)]
    return [of_length(*row) for row in lengths]


# ---- the order of an epoch ----------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 32, 699, 700, 1000])
def test_every_image_is_in_one_batch(captions, batch_size):
    order = epoch_order(captions, batch_size, seed=1, epoch=0)
    assert sorted(index for batch in order for index in batch) == list(range(700))
    assert sum(len(batch) != batch_size for batch in order) <= 1
    assert max(map(len, order)) <= batch_size


def test_the_order_depends_on_seed_and_epoch_alone(captions):
    random.seed(1)
    first = epoch_order(captions, 32, seed=1, epoch=0)
    random.seed(2)
    state = random.getstate()
    assert epoch_order(captions, 32, seed=1, epoch=0) == first
    assert random.getstate() == state
    assert epoch_order(captions, 32, seed=1, epoch=1) != first
    assert epoch_order(captions, 32, seed=2, epoch=0) != first
    # Not even the batches are the same, apart from their order.
    later = epoch_order(captions, 32, seed=1, epoch=1)
    assert not {frozenset(batch) for batch in first} & {frozenset(batch) for batch in later}


def padding(captions, order):
    """The share of padding among the tokens."""
    tokens = [pad_captions([captions[i] for i in batch]) for batch in order]
    return 1 - sum((t != 0).sum().item() for t in tokens) / sum(t.numel() for t in tokens)


def test_images_with_captions_of_similar_length_share_a_batch(captions):
    captions = [image[:1] for image in captions]
    shuffled = random.Random(0).sample(range(700), 700)
    at_random = [shuffled[i : i + 32] for i in range(0, 700, 32)]
    order = epoch_order(captions, 32, seed=0, epoch=0)
    assert padding(captions, order) < padding(captions, at_random) / 4
    longest = [len(captions[batch[0]][0]) for batch in order]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_every_batch_has_an_image_for_each_process(captions, processes):
    for images in (65, 66, 67, 72):
        order = epoch_order(captions[:images], 64, seed=0, epoch=0, processes=processes)
        assert min(map(len, order)) >= processes
        assert sorted(index for batch in order for index in batch) == list(range(images))
        shares = [batch[rank::processes] for batch in order for rank in range(processes)]
        assert all(shares)


def test_fewer_images_than_processes_are_refused(captions):
    with pytest.raises(InputError, match="4 processes need at least 4 images, got 3; start fewer"):
        epoch_order(captions[:3], 32, seed=0, epoch=0, processes=4)
    assert epoch_order(captions[:4], 32, seed=0, epoch=0, processes=4) != []
    message = "batch_size must be at least the number of processes, 4, got 3"
    with pytest.raises(InputError, match=message):
        epoch_order(captions, 3, seed=0, epoch=0, processes=4)


def reference_order(captions, batch_size, seed, epoch):
    """The order of images in plain files, in the simplest way."""
    generator = random.Random(f"{seed}/{epoch}")
    indices, batches = list(range(len(captions))), []
    generator.shuffle(indices)
    for first in range(0, len(indices), 50 * batch_size):
        part = sorted(indices[first : first + 50 * batch_size], key=lambda i: len(captions[i][0]))
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    generator.shuffle(batches)
    return batches


def test_the_order_of_images_in_plain_files_never_changes(captions):
    for batch_size in (3, 32):
        assert epoch_order(captions, batch_size, 1, 2) == reference_order(
            captions, batch_size, 1, 2
        )


@pytest.mark.parametrize(("batch_size", "processes"), [(10, 1), (7, 2), (64, 3), (500, 1)])
def test_images_in_tar_files_come_tar_by_tar(captions, batch_size, processes):
    """Within windows over successive tar files, each of which is read once from start to end."""
    tars = [f"{i // 50}.tar" for i in range(700)]
    order = epoch_order(captions, batch_size, 0, 0, processes, tars, 140)
    assert sorted(index for batch in order for index in batch) == list(range(700))
    assert min(map(len, order)) >= processes
    window = max(1, 140 // batch_size)
    seen = [
        {index for batch in order[first : first + window] for index in batch}
        for first in range(0, len(order), window)
    ]
    last = {}  # tar file -> its last image so far
    for indices in seen:
        of_window = {tars[i] for i in indices}
        assert len(of_window) <= (window * batch_size + processes) // 50 + 2
        for tar in of_window:
            inside = [i for i in indices if tars[i] == tar]
            assert min(inside) > last.get(tar, -1)  # continues where the last window ended
            last[tar] = max(inside)
    later = epoch_order(captions, batch_size, 0, 1, processes, tars, 140)[:window]
    assert {tars[i] for batch in later for i in batch} != {tars[i] for i in seen[0]}


def test_windows_of_tar_files_are_shuffled(captions):
    """The order of tar files, of images in a window and of its batches changes by epoch."""
    captions, tars = [image[:1] for image in captions], [i // 50 for i in range(700)]
    order = epoch_order(captions, 32, 0, 0, 1, tars, 2000)
    assert epoch_order(captions, 32, 0, 0, 1, tars, 2000) == order
    later = epoch_order(captions, 32, 0, 1, 1, tars, 2000)
    assert not {frozenset(batch) for batch in order} & {frozenset(batch) for batch in later}
    shuffled = random.Random(0).sample(range(700), 700)
    at_random = [shuffled[i : i + 32] for i in range(0, 700, 32)]
    assert padding(captions, order) < padding(captions, at_random) / 4
    longest = [len(captions[batch[0]][0]) for batch in order]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)
    alike = epoch_order([of_length(5)] * 700, 32, 0, 0, 1, tars, 2000)
    assert all(len({tars[i] for i in batch}) > 5 for batch in alike[:-1])


# ---- captions as tokens -------------------------------------------------------------------------


def test_captions_become_tokens_longest_first(vocabulary):
    (tokens,) = encode_captions([example("Dog.", "a red dog runs", "a zebra sits")], vocabulary)
    start, end, unknown = vocabulary.START, vocabulary.END, vocabulary.UNKNOWN
    expected = [["a", "red", "dog", "runs"], ["a", "zebra", "sits"], ["dog"]]
    assert tokens == [[start, *vocabulary.encode(words), end] for words in expected]
    assert tokens[1][2] == unknown


def test_captions_without_words_are_left_out_and_long_ones_are_cut(vocabulary):
    (tokens,) = encode_captions([example("!", "dog " * 80, "")], vocabulary)
    assert [len(caption) for caption in tokens] == [1 + MAX_WORDS + 1]
    assert tokens[0][-1] == vocabulary.END


# ---- batches ------------------------------------------------------------------------------------


def test_training_batches_hold_the_images_of_the_order_with_their_captions(captions):
    values = torch.arange(700.0)
    images = FunctionSource(
        lambda indices: values[list(indices)].view(-1, 1, 1, 1).expand(-1, 3, 2, 2),
        are_features=False,
    )
    ids = [f"p{i}" for i in range(700)]
    order = epoch_order(captions, 50, seed=0, epoch=0)
    assert len(order) == 14
    for number in (0, 13):
        tokens = pad_captions([captions[i] for i in order[number]])
        batch = batches.make_batch(images, order[number], [ids[i] for i in order[number]], tokens)
        assert batch.features is None
        assert batch.images[:, 0, 0, 0].tolist() == order[number]
        assert batch.ids == tuple(f"p{i}" for i in order[number])
        for row, index in zip(batch.tokens.tolist(), order[number], strict=True):
            assert [[token for token in text if token] for text in row] == captions[index]


def test_all_tensors_move_with_the_batch(make_batch):
    batch = make_batch([[[4, 5]], [[6]]])
    assert batch.images is None
    assert batch.features.shape == (2, 10, 4, 3)
    moved = batch.to(torch.device("meta"))
    assert isinstance(moved, Batch)
    assert moved.ids == batch.ids
    assert moved.tokens.is_meta
    assert moved.features.is_meta
    assert moved.images is None
    rollouts = Rollouts(torch.ones(2, 1), torch.zeros(2, 1, dtype=torch.bool))
    soft = Distillation(torch.ones(2, 1, 3, 4), torch.ones(2, 1, 3, 4), 0.3)
    moved = replace(batch, rollouts=rollouts, distillation=soft).to(torch.device("meta"))
    assert moved.rollouts.weights.is_meta
    assert moved.rollouts.sampled.is_meta
    assert moved.distillation.tokens.is_meta
    assert moved.distillation.probs.is_meta
    assert moved.distillation.weight == 0.3
    source = make_batch([[[4, 5]]], images=True).to(torch.device("meta"))
    assert source.images.is_meta
    assert source.features is None

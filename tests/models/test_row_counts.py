"""Few shapes of bfloat16 products: rows are padded, and the results stay the same bit for bit."""

import random

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.setting import Sizes, build, draw_batch, draw_features, forced, vary
from captioner import products
from captioner.decoding.decode import decode
from captioner.decoding.options import DecodingOptions
from captioner.decoding.teacher_forcing import score_captions
from captioner.devices import products_in
from captioner.products import in_blocks, on_padded_rows, pad_rows, padded_count

CPU = torch.device("cpu")
SIZES = Sizes(positions=4, channels=8, vocabulary=50, hidden=16)
PRODUCTS = ("linear", "matmul", "mm", "addmm", "bmm")
PRODUCTS += ("mkldnn_rnn_layer", "mkldnn_rnn_layer_backward")


class Shapes(TorchDispatchMode):
    """Collects the operator and the shapes of every bfloat16 product that torch computes."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [x for x in args if isinstance(x, torch.Tensor)]
        name = function.overloadpacket.__name__
        if name in PRODUCTS and any(x.dtype == torch.bfloat16 for x in tensors):
            self.seen.add((name, *(tuple(x.shape) for x in tensors)))
        return function(*args, **(kwargs or {}))


def count_new_shapes(work, early, late):
    """Return the number of shapes of the first calls, and of those that only later ones bring."""
    counts = []
    with Shapes() as shapes:
        for calls in (range(early), range(early, early + late)):
            before = len(shapes.seen)
            for call in calls:
                work(random.Random(call))
            counts.append(len(shapes.seen) - before)
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("attention", [True, False])
def test_batches_of_new_sizes_bring_few_new_shapes(attention):
    model = build(SIZES, attention=attention, device=CPU).train()

    def step(rng):
        shortest = rng.randint(6, 9)
        seed = rng.randrange(10**6)
        batch = draw_batch(SIZES, 16, shortest, shortest + rng.randint(0, 6), seed)
        with products_in("bfloat16", CPU):
            loss = model(batch)
        loss.value.backward()

    early, late = count_new_shapes(step, 16, 12)
    assert early > 40  # the products are seen at all
    assert late < 30  # without padding, every batch brings 6 to 8 new shapes


def rows_per_step(shapes, weight):
    """Return the numbers of rows that were multiplied by a layer's weight."""
    return {rows[0] for name, rows, *others in shapes.seen if name == "linear" and weight in others}


@pytest.mark.slow
def test_requests_of_new_sizes_bring_few_new_shapes():
    model = build(SIZES, attention=True, device=CPU)
    features = draw_features(SIZES, 64, CPU)
    with Shapes() as shapes, torch.inference_mode(), products_in("bfloat16", CPU):
        for images in range(1, 65):
            options = forced(vary(SIZES, beams=1 + images % 5, steps=2))
            decode(model, features[:images], options)
    for weight in (model.words.weight, model.read_hidden.weight):
        rows = rows_per_step(shapes, tuple(weight.shape))
        assert 10 < len(rows) < 60
        assert all(padded_count(count) == count for count in rows)
    sums = [shape for name, shape, *_ in shapes.seen if name == "matmul"]  # of annotations
    assert {images for images, *_ in sums} == {1, 2, 4, 8, 16, 32, 64}
    assert len(sums) <= 7 * 5


@pytest.mark.parametrize("attention", [True, False])
def test_scoring_pads_its_rows(attention):
    model = build(SIZES, attention=attention, device=CPU)
    features = draw_features(SIZES, 37, CPU)
    tokens = torch.full((37, 1, 4), 5)
    with Shapes() as shapes, products_in("bfloat16", CPU):
        score_captions(model, features, tokens, DecodingOptions())
    assert rows_per_step(shapes, tuple(model.words.weight.shape)) == {40}


def test_counts_are_rounded_up_to_few():
    counts = [padded_count(n) for n in range(4097)]
    assert all(n <= padded <= max(n + 1, 1.125 * n) for n, padded in enumerate(counts))
    assert counts[:17] == [*range(17)]
    assert len(set(counts)) < 90
    assert padded_count(3, 64) == 64
    assert counts[129] == 144


@pytest.mark.parametrize("count", [1, 17, 37, 300])
def test_results_and_gradients_are_the_same_bits(count):
    torch.manual_seed(count)
    layer = torch.nn.Linear(24, 70)
    rows = torch.randn(count, 24, requires_grad=True)
    factor = torch.randn(count, 70)

    def run(apply):
        with products_in("bfloat16", CPU):
            result = apply(rows)
        return result, *torch.autograd.grad(result, (rows, *layer.parameters()), factor.bfloat16())

    padded, plain = run(lambda x: on_padded_rows(layer, x)), run(layer)
    assert all(map(torch.equal, padded, plain))


@pytest.mark.parametrize("attention", [True, False])
def test_losses_and_gradients_of_a_model_are_the_same_bits(attention, monkeypatch):
    model = build(SIZES, attention=attention, device=CPU)
    batch = draw_batch(SIZES, 13, 3, 9)

    def run():
        model.zero_grad()
        with products_in("bfloat16", CPU):
            loss = model(batch)
        loss.value.backward()
        return [loss.value.detach(), *(p.grad for p in model.parameters())]

    padded = run()
    monkeypatch.setattr(products, "padded_count", lambda count, _=1: count)
    assert all(map(torch.equal, padded, run()))


@pytest.mark.parametrize("count", [1, 6, 8, 37])
def test_blocks_of_images_have_the_same_bits(count):
    torch.manual_seed(count)
    rows, matrices = torch.randn(count, 5, 9), torch.randn(count, 9, 24)
    called = []

    def multiply(left, right):
        called.append(len(left))
        return left @ right

    assert torch.equal(in_blocks(multiply, rows, matrices), rows @ matrices)
    assert called == [count]  # float32 is not cached
    rows, matrices = rows.bfloat16(), matrices.bfloat16()
    called.clear()
    assert torch.equal(in_blocks(multiply, rows, matrices), rows @ matrices)
    assert called == {1: [1], 6: [4, 2], 8: [8], 37: [32, 4, 1]}[count]


def test_float32_rows_are_left_alone():
    rows = torch.randn(37, 3)
    assert pad_rows(rows) is rows
    with products_in("bfloat16", CPU):
        assert len(pad_rows(rows)) == 40
    assert len(pad_rows(rows.bfloat16())) == 40

"""Both models against the papers' equations, and whether they learn.

The equations in tests/support share only the weights with the models: single words, plain loops,
keys computed at every step.
"""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch.overrides import TorchFunctionMode

from captioner.data.batches import Batch, Rollouts, encode_captions, make_batch
from captioner.data.dataset import Example
from captioner.data.images import Transform
from captioner.data.sources import FunctionSource
from captioner.decoding.decode import decode
from captioner.decoding.options import DecodingOptions
from captioner.errors import InputError
from captioner.models.captioning.build import ShowAndTell, ShowAttendAndTell, build_model
from captioner.models.captioning.options import ModelOptions
from captioner.models.layers import Dropout
from captioner.text.collate import pad_captions
from captioner.text.vocabulary import Vocabulary
from tests.support.equations import CAPTIONS, WORDS, show_and_tell, show_attend_and_tell

# ---- the equations ------------------------------------------------------------------------------


def loss_by_hand(model, features, smoothing, coverage_weight):
    """Loss, cross-entropy and coverage of the batch per word, by the equations."""
    equations = show_attend_and_tell if model.options.attention else show_and_tell
    cross_entropy = uniform = coverage = torch.zeros(())
    for image, texts in zip(features, CAPTIONS, strict=True):
        for caption in texts:
            rows, maps = equations(model, image, caption)
            for log_probs, target in zip(rows, [*caption, 2], strict=True):
                cross_entropy = cross_entropy - log_probs[target]
                uniform = uniform - log_probs.mean()
            if maps:  # equation 14
                coverage = coverage + ((1 - sum(maps)) ** 2).sum()
    value = (1 - smoothing) * cross_entropy + smoothing * uniform + coverage_weight * coverage
    return value / WORDS, cross_entropy / WORDS, coverage / WORDS


@pytest.mark.parametrize(
    ("smoothing", "weight", "annotation"), [(0.0, 0.0, 10), (0.1, 0.0, 0), (0.2, 0.7, 10)]
)
def test_loss_and_gradients_equal_the_equations(
    attention, smoothing, weight, annotation, tiny_model, make_batch
):
    sizes = {"annotation_size": annotation}
    model = tiny_model(attention, label_smoothing=smoothing, coverage_weight=weight, **sizes)
    batch = make_batch(CAPTIONS)
    loss = model.loss(batch)
    expected, cross_entropy, coverage = loss_by_hand(model, batch.features, smoothing, weight)
    assert loss.count == WORDS
    assert loss.value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss.parts["cross_entropy"].item() == pytest.approx(cross_entropy.item(), rel=1e-5)
    assert not any(part.requires_grad for part in loss.parts.values())
    if attention:
        assert loss.parts["coverage"].item() == pytest.approx(coverage.item(), rel=1e-5)
    parameters = [p for p in model.parameters() if p.requires_grad]
    grads, expected_grads = (torch.autograd.grad(x, parameters) for x in (loss.value, expected))
    torch.testing.assert_close(grads, expected_grads, rtol=1e-4, atol=1e-5)


def test_attention_maps_equal_the_equations(tiny_model, features):
    model = tiny_model(True).eval()
    maps = features(2)
    for number, caption in ((0, [4, 5, 6]), (1, [9, 9])):
        _, expected = show_attend_and_tell(model, maps[number], caption)
        memory, state = model.start(maps[number : number + 1], 1)
        for word, attention in zip([1, *caption], expected, strict=True):
            _, state, seen = model.step(torch.tensor([word]), state, memory)
            assert seen.shape == (1, 4, 3)
            torch.testing.assert_close(seen.flatten(), attention)


# ---- the loss -----------------------------------------------------------------------------------


def teacher_forced(model, features, caption):
    """Log-probability of every word of one image's caption, by `start` and `step`."""
    memory, state = model.start(features[None], 1)
    log_probs = []
    for word, target in zip([1, *caption], [*caption, 2], strict=True):
        scores, state, _ = model.step(torch.tensor([word]), state, memory)
        log_probs.append(torch.log_softmax(scores[0], 0)[target].item())
    return log_probs


def test_the_loss_is_the_mean_over_the_steps(attention, tiny_model, make_batch):
    model = tiny_model(attention, dropout=0.5, label_smoothing=0.0, coverage_weight=0.0).eval()
    batch = make_batch(CAPTIONS)
    log_probs = [
        log_prob
        for image, texts in zip(batch.features, CAPTIONS, strict=True)
        for caption in texts
        for log_prob in teacher_forced(model, image, caption)
    ]
    assert model.loss(batch).value.item() == pytest.approx(-sum(log_probs) / WORDS, rel=1e-5)


def test_padding_leaves_the_loss_unchanged(attention, tiny_model, make_batch):
    model = tiny_model(attention, coverage_weight=0.5)
    batch = make_batch(CAPTIONS)
    tokens = F.pad(batch.tokens, (0, 3, 0, 2))  # three more words and two more captions
    expected, loss = model.loss(batch), model.loss(replace(batch, tokens=tokens))
    assert loss.count == expected.count
    torch.testing.assert_close(loss.value, expected.value)


def test_the_loss_of_a_batch_is_the_mean_over_its_words(attention, tiny_model, make_batch):
    model = tiny_model(attention, coverage_weight=0.5)
    batch = make_batch(CAPTIONS)
    total = 0.0
    for number, texts in enumerate(CAPTIONS):
        for caption in texts:
            alone = make_batch([[caption]])
            alone = Batch((0,), alone.tokens, features=batch.features[[number]])
            loss = model.loss(alone)
            assert loss.count == len(caption) + 1
            total += loss.value.item() * loss.count
    assert model.loss(batch).value.item() == pytest.approx(total / WORDS, rel=1e-5)


def test_a_weighted_batch_is_the_weighted_sum_over_its_captions(attention, tiny_model, make_batch):
    """Without smoothing; sampled captions have no coverage loss and no part in the log."""
    model = tiny_model(attention, coverage_weight=0.5, label_smoothing=0.3)
    batch = make_batch(CAPTIONS)
    weights = torch.tensor([[0.7, -0.4, 2.0], [-1.5, 9.0, 9.0], [0.3, 0.6, 9.0]])
    sampled = torch.tensor([[False, True, False], [True, True, False], [True, False, True]])
    loss = model.loss(replace(batch, rollouts=Rollouts(weights, sampled)))
    expected, words, plain = torch.zeros(()), 0, 0.0
    for b, texts in enumerate(CAPTIONS):
        for c, caption in enumerate(sorted(texts, key=len, reverse=True)):
            coverage_weight = 0.0 if sampled[b, c] else 0.5
            model.options = replace(
                model.options, coverage_weight=coverage_weight, label_smoothing=0
            )
            alone = make_batch([[caption]])
            alone = model.loss(replace(alone, features=batch.features[[b]]))
            expected = expected + weights[b, c] * alone.value * alone.count
            if not sampled[b, c]:
                words += alone.count
                plain += alone.parts["cross_entropy"].item() * alone.count
    assert loss.count == words
    assert loss.value.item() == pytest.approx(expected.item() / words, rel=1e-5)
    assert loss.parts["cross_entropy"].item() == pytest.approx(plain / words, rel=1e-5)
    parameters = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss.value, parameters)
    expected_grads = torch.autograd.grad(expected / words, parameters)
    torch.testing.assert_close(grads, expected_grads, rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_only(attention, tiny_model, make_batch):
    model = tiny_model(attention, dropout=0.5)
    batch = make_batch(CAPTIONS)
    assert model.loss(batch).value != model.loss(batch).value
    model.eval()
    assert model.loss(batch).value == model.loss(batch).value


def test_stored_half_precision_maps_and_autocast(attention, tiny_model, make_batch):
    model = tiny_model(attention)
    batch = make_batch(CAPTIONS)
    half = replace(batch, features=batch.features.half())
    exact = model.loss(batch).value.item()
    assert model.loss(half).value.item() == pytest.approx(exact, rel=1e-2)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(batch).value
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=0.05)


# ---- how often things are computed --------------------------------------------------------------


def count_calls(module):
    """A list that grows by the shape of the first argument at every call of the module."""
    shapes = []
    module.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    return shapes


@pytest.fixture
def vocabulary_products(monkeypatch):
    """A function that records the number of rows of every product with the word embeddings."""

    def watch(model):
        rows, product = [], F.linear

        def linear(inputs, weight, bias=None):
            if weight is model.words.weight:
                rows.append(inputs.shape[:-1].numel())
            return product(inputs, weight, bias)

        monkeypatch.setattr(F, "linear", linear)
        return rows

    return watch


def test_show_and_tell_calls_the_lstm_and_the_vocabulary_once(
    tiny_model, make_batch, vocabulary_products
):
    model = tiny_model(False)
    batch = make_batch(CAPTIONS, images=True)
    lstm, encoder = count_calls(model.lstm), count_calls(model.encoder)
    products = vocabulary_products(model)
    model.loss(batch)
    assert type(model.lstm) is torch.nn.LSTM
    assert lstm == [(9, 1 + 8, 9)]  # 3 x 3 captions, the image and 8 words, embedding 9
    assert products == [WORDS]
    assert encoder == [(3, 3, 32, 32)]


class SoftmaxShapes(TorchFunctionMode):
    """Records the shapes (B, K, P) of the attention energies: their softmax runs once per step."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.softmax:
            self.shapes.append(tuple(args[0].shape))
        return function(*args, **(kwargs or {}))


def test_attention_computes_outside_the_loop_what_the_steps_share(
    tiny_model, make_batch, vocabulary_products
):
    model = tiny_model(True)
    batch = make_batch(CAPTIONS, images=True)
    keys = count_calls(model.key)
    word_gates, encoder = count_calls(model.word_gates), count_calls(model.encoder)
    products = vocabulary_products(model)
    with SoftmaxShapes() as energies:
        model.loss(batch)
    assert keys == [(3, 4, 4, 10)]  # once per image, not per caption or word
    active_captions = [3, 3, 2, 2, 1, 1, 1, 1]
    assert energies.shapes == [(3, active, 16) for active in active_captions]
    assert word_gates == [(WORDS, 9)]  # padding is not multiplied
    assert products == [WORDS]
    assert encoder == [(3, 3, 32, 32)]


def test_captions_of_an_image_share_its_memory(attention, tiny_model, features):
    model = tiny_model(attention).eval()
    maps = features(2)
    memory, state = model.start(maps, 1)
    before = {key: value.clone() for key, value in memory.items()}
    state = {key: value.repeat_interleave(3, 0) for key, value in state.items()}
    words = torch.tensor([4, 5, 6, 7, 8, 4])
    scores, state, seen = model.step(words, state, memory)
    assert all(len(value) == 2 for value in memory.values())
    assert all(torch.equal(memory[key], before[key]) for key in before)
    for row, word in enumerate(words):
        alone_memory, alone = model.start(maps[row // 3][None], 1)
        expected, alone, seen_alone = model.step(word[None], alone, alone_memory)
        torch.testing.assert_close(scores[row], expected[0])
        torch.testing.assert_close(state["hidden"][row], alone["hidden"][0])
        if attention:
            torch.testing.assert_close(seen[row], seen_alone[0])
        else:
            assert seen is None
            assert seen_alone is None


@pytest.mark.parametrize("expected_steps", [1, 7, 8, 1000])
def test_precomputed_word_gates_leave_the_results(expected_steps, tiny_model, features):
    model = tiny_model(True).eval()
    maps, words = features(2), torch.tensor([4, 5])
    memory, state = model.start(maps, expected_steps)
    assert ("word_gates" in memory) == (2 * expected_steps > 15)  # words of the vocabulary
    values = torch.relu(model.annotate(maps.permute(0, 2, 3, 1)))
    keys = model.key(values) * 2
    plain = {"keys": keys, "decayed_keys": torch.exp(-keys.detach()), "values": values}
    actual, expected = model.step(words, state, memory), model.step(words, state, plain)
    torch.testing.assert_close(actual, expected)


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    dropout, ones = Dropout(0.3), torch.ones(100, 1000)
    dropped = dropout(ones)
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(dropout.eval()(ones), ones)
    assert torch.equal(Dropout(0.0)(ones), ones)


# ---- gradients ----------------------------------------------------------------------------------


def batch_norm_statistics(model):
    return {k: v.clone() for k, v in model.state_dict().items() if "running" in k or "num_" in k}


def test_every_parameter_gets_a_gradient(attention, tiny_model, make_batch):
    model = tiny_model(attention, trained_from=0, dropout=0.2)
    before = batch_norm_statistics(model)
    model.train().loss(make_batch(CAPTIONS, images=True)).value.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    after = batch_norm_statistics(model)
    assert before
    assert not any(torch.equal(before[key], after[key]) for key in before)


def test_a_frozen_encoder_gets_no_gradient_and_keeps_its_statistics(
    attention, tiny_model, make_batch
):
    model = tiny_model(attention, trained_from=None)
    before = batch_norm_statistics(model)
    model.train().loss(make_batch(CAPTIONS, images=True)).value.backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith("encoder.")
        assert (parameter.grad is None) == frozen, name
        assert parameter.requires_grad != frozen, name
    after = batch_norm_statistics(model)
    assert before
    assert all(torch.equal(before[key], after[key]) for key in before)


# ---- options ------------------------------------------------------------------------------------


def test_build_model_builds_the_model_of_the_options(attention, tiny_encoder):
    model = build_model(tiny_encoder(), 9, ModelOptions(attention=attention))
    assert type(model) is (ShowAttendAndTell if attention else ShowAndTell)
    assert model.options.name == ("attention" if attention else "show-and-tell")
    with pytest.raises(InputError, match="the vocabulary is empty; lower --min-count"):
        build_model(tiny_encoder(), 4, ModelOptions(attention=attention))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_size": 0}, "embedding_size must be at least 1, got 0"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"attention_size": -1}, "attention_size must be at least 1, got -1"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing must be at least 0 and below 1, got -0.1"),
        ({"coverage_weight": -1.0}, "coverage_weight must be at least 0, got -1.0"),
    ],
)
def test_model_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ModelOptions(**options)


# ---- learning -----------------------------------------------------------------------------------


def four_images(transform):
    """Four drawn images of 32 x 32 pixels with one caption each, of 2 to 7 words."""
    shapes = [
        ("red square", "rectangle", "red", (4, 4, 27, 27)),
        ("a blue circle on the left", "ellipse", "blue", (1, 10, 13, 22)),
        ("a yellow circle on the right side", "ellipse", "yellow", (18, 10, 30, 22)),
        ("a green square", "rectangle", "green", (10, 10, 21, 21)),
    ]
    images, examples = [], []
    for number, (caption, shape, color, box) in enumerate(shapes):
        image = Image.new("RGB", (32, 32), "white")
        getattr(ImageDraw.Draw(image), shape)(box, fill=color)
        images.append(transform(image))
        examples.append(Example(number, "drawn", (caption,), "train"))
    return torch.stack(images), examples


def test_four_drawn_images_are_memorised(attention, tiny_encoder):
    images, examples = four_images(Transform(32))
    captions = [example.captions[0] for example in examples]
    vocabulary = Vocabulary.build([caption.split() for caption in captions])
    tokens = pad_captions(encode_captions(examples, vocabulary))
    source = FunctionSource(lambda _: images, are_features=False)
    batch = make_batch(source, range(4), range(4), tokens)
    sizes = {"embedding_size": 32, "hidden_size": 48, "attention_size": 24, "dropout": 0.0}
    options = ModelOptions(attention=attention, **sizes)
    model = build_model(tiny_encoder(trained_from=0), len(vocabulary), options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    first = None
    for _ in range(150):
        loss = model.loss(batch)
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
        first = first or loss.value.item()
    model.eval()
    assert first > math.log(len(vocabulary)) - 0.7  # that of a uniform distribution
    features = model.encoder(images)
    for options in (DecodingOptions("greedy"), DecodingOptions("beam", beam_size=3)):
        found = decode(model, features, options)
        texts = [" ".join(vocabulary.decode(best.tokens)) for best, *_ in found]
        assert texts == captions

"""The joint embedding: its text side against torch's LSTM-free loop, losses, and learning."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from captioner.errors import InputError
from captioner.models.linking.contrastive import (
    RELATIVE,
    hardest_hinges,
    info_nce,
    sum_of_hinges,
)
from captioner.models.linking.joint import Differences, Exchanged, JointBatch, JointEmbedding
from captioner.models.linking.linear import image_vectors
from captioner.models.linking.options import JointOptions
from captioner.models.linking.texts import Texts

IMAGE_OF_TEXT = torch.tensor([0, 0, 1, 2, 2])
TOKENS = torch.tensor([[4, 5, 6, 0], [4, 0, 0, 0], [7, 6, 5, 4], [8, 8, 0, 0], [5, 0, 0, 0]])


def tiny_model(vector_size=0, **options):
    torch.manual_seed(0)
    sizes = {"dimensions": 6, "word_size": 5, "hidden_size": 7}
    sizes |= {"dropout": 0.0, "word_dropout": 0.0}
    return JointEmbedding(8, 10, vector_size, JointOptions(**sizes | options))


def tiny_batch(vector_size=0, **others):
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(5, vector_size, generator=generator) if vector_size else None
    images = torch.rand(3, 2, 8, generator=generator)
    texts = Texts(TOKENS, vectors)
    return JointBatch(images, True, texts, IMAGE_OF_TEXT, ("a", "b", "c"), **others)


def state_after(model, tokens):
    """The GRU's state after the words of one text, by its equations (Cho et al. 2014)."""
    gru, state = model.gru, torch.zeros(model.gru.hidden_size)
    for token in tokens:
        inputs = gru.weight_ih_l0 @ model.words.weight[token] + gru.bias_ih_l0
        memory = gru.weight_hh_l0 @ state + gru.bias_hh_l0
        (reset_in, update_in, new_in), (reset, update, new) = inputs.chunk(3), memory.chunk(3)
        reset, update = torch.sigmoid(reset_in + reset), torch.sigmoid(update_in + update)
        state = (1 - update) * torch.tanh(new_in + reset * new) + update * state
    return state


@pytest.mark.parametrize(
    ("vector_size", "word_sum"), [(0, False), (0, True), (3, False), (3, True)]
)
def test_texts_are_embedded_from_their_last_state_and_the_sum_of_their_words(vector_size, word_sum):
    model, batch = tiny_model(vector_size, word_sum=word_sum).eval(), tiny_batch(vector_size)
    found = model.encode_texts(batch.texts)
    for row, tokens in enumerate(TOKENS):
        parts = [state_after(model, tokens[tokens != 0])]
        if vector_size:
            parts.append(batch.texts.vectors[row])
        if word_sum:
            words = [model.words.weight[token] for token in tokens if token]
            parts.append(sum(words) / len(words) ** 0.5)
        expected = F.normalize(model.text(torch.cat(parts)), dim=0)
        torch.testing.assert_close(found[row], expected)


def test_padding_and_other_texts_do_not_change_an_embedding():
    model = tiny_model().eval()
    alone = model.encode_texts(Texts(torch.tensor([[4, 5, 6]])))
    torch.testing.assert_close(model.encode_texts(Texts(TOKENS))[:1], alone)
    torch.testing.assert_close(model.encode_texts(Texts(F.pad(TOKENS, (0, 5))))[:1], alone)


def test_images_are_embedded_from_maps_pooled_features_or_vectors():
    model = tiny_model().eval()
    maps = torch.rand(2, 8, 3, 4)
    pooled = torch.stack([maps.mean((2, 3)), maps.amax((2, 3))], 1)
    expected = F.normalize(model.image(image_vectors(maps)), dim=1)
    for features in (maps, pooled, image_vectors(maps)):
        torch.testing.assert_close(model.encode_images(features), expected)
    with pytest.raises(InputError, match="image features must have 2, 3 or 4 dimensions, got 1"):
        model.encode_images(torch.rand(8))


@pytest.mark.parametrize(
    ("options", "warm", "expected"),
    [
        ({}, True, lambda c: info_nce(c / 0.07, IMAGE_OF_TEXT)),
        ({"temperature": 0.5}, True, lambda c: info_nce(c / 0.5, IMAGE_OF_TEXT)),
        ({"temperature": 0.001}, True, lambda c: info_nce(c * 100, IMAGE_OF_TEXT)),
        ({"loss": "hinges"}, True, lambda c: sum_of_hinges(c, IMAGE_OF_TEXT, 0.2)),
        ({"loss": "hardest"}, False, lambda c: sum_of_hinges(c, IMAGE_OF_TEXT, 0.2)),
        ({"loss": "hardest", "margin": 0.5}, True, lambda c: hardest_hinges(c, IMAGE_OF_TEXT, 0.5)),
    ],
)
def test_the_loss_is_per_text(options, warm, expected):
    model, batch = tiny_model(**options).eval(), tiny_batch(warm=warm)
    cosines = model.encode_images(batch.images) @ model.encode_texts(batch.texts).T
    found = model.loss(batch)
    assert found.count == 5
    torch.testing.assert_close(found.value, expected(cosines) / 5)


EXCHANGED = Exchanged(Texts(torch.tensor([[6, 5, 4], [8, 4, 0]])), torch.tensor([0, 3]))


@pytest.mark.parametrize("loss", ["infonce", "hinges", "hardest"])
def test_an_exchanged_text_is_a_further_negative_of_its_image_only(loss):
    model, batch = tiny_model(loss=loss).eval(), tiny_batch(exchanged=EXCHANGED)
    images, texts = model.encode_images(batch.images), model.encode_texts(batch.texts)
    others = model.encode_texts(EXCHANGED.texts)
    scores, total = images @ texts.T, torch.tensor(0.0)
    for n, image in enumerate(IMAGE_OF_TEXT.tolist()):
        right = scores[image, n]
        wrong_images = [scores[i, n] for i in range(3) if i != image]
        wrong_texts = [scores[image, m] for m in range(5) if IMAGE_OF_TEXT[m] != image]
        if n in (0, 3):
            wrong_texts.append(images[image] @ others[(0, 3).index(n)])
        for wrong in map(torch.stack, (wrong_images, wrong_texts)):
            if loss == "infonce":
                total += (torch.cat([right[None], wrong]) / 0.07).logsumexp(0) / 2 - right / 0.14
            else:
                hinges = (0.2 - right + wrong).clamp_min(0)
                total += hinges.amax() if loss == "hardest" else hinges.sum()
    torch.testing.assert_close(model.loss(batch).value, total / 5)


def test_queries_that_subtract_are_compared_with_all_images():
    own = torch.tensor([[True, False], [True, False], [False, True]])
    queries = Differences(
        Texts(torch.tensor([[7], [4]])), torch.tensor([0, 4]), torch.tensor([1, 1]), own
    )
    model = tiny_model(subtraction_weight=0.5).eval()
    batch = tiny_batch(exchanged=EXCHANGED, differences=queries)
    images, texts = model.encode_images(batch.images), model.encode_texts(batch.texts)
    word = model.encode_texts(queries.words)[1]
    first, second = (F.normalize(texts[n] - word, dim=0) for n in (0, 4))
    expected = F.cross_entropy(images[[0, 2]] @ first / 0.07, torch.tensor(0))
    expected += F.cross_entropy(images @ second / 0.07, torch.tensor(2))
    found = model.loss(batch).value - model.loss(tiny_batch(exchanged=EXCHANGED)).value
    torch.testing.assert_close(found, 0.5 * expected / 5)


@pytest.mark.parametrize("loss", ["infonce", "hinges", "hardest"])
def test_training_ranks_every_text_first(loss):
    model, batch = tiny_model(loss=loss), tiny_batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        model(batch).value.backward()
        optimizer.step()
    cosines = model.encode_images(batch.images) @ model.encode_texts(batch.texts).T
    assert cosines.argmax(0).equal(IMAGE_OF_TEXT)
    own = torch.arange(3)[:, None] == IMAGE_OF_TEXT
    assert (cosines.masked_fill(~own, 9).amin(1) > cosines.masked_fill(own, -9).amax(1)).all()


def test_a_random_negative_is_scored_with_the_image_of_its_pair():
    options = {"loss": "random-negative", "margin": 1.0, "similarity": "dot", "hidden_size": 6}
    options |= {"image_activation": "tanh", "image_scaling": "none"}
    options |= {"text_layer": False, "word_sum": False}
    model = tiny_model(**options).eval()
    wrong = Texts(TOKENS[[2, 4, 0, 1, 2]])
    batch = tiny_batch(wrong_texts=wrong)
    images = torch.tanh(model.image(batch.images[:, 0]))
    torch.testing.assert_close(model.encode_images(batch.images), images)
    texts, others = model.encode_texts(batch.texts), model.encode_texts(wrong)
    torch.testing.assert_close(texts[1], state_after(model, [4]))
    right, negative = ((images @ rows.T).tolist() for rows in (texts, others))
    expected = 0.0
    for n, image in enumerate(IMAGE_OF_TEXT.tolist()):
        expected += max(0.0, 1 - right[image][n] + negative[image][n])
    found = model.loss(batch)
    assert (found.value.item(), found.count) == (pytest.approx(expected / 5), 5)
    assert float(found.parts[RELATIVE]) == pytest.approx(expected / 5)
    model(batch).value.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_without_a_text_layer_sizes_must_fit():
    with pytest.raises(InputError, match="hidden_size is 7 and dimensions 6; make them equal"):
        tiny_model(text_layer=False, word_sum=False)
    with pytest.raises(InputError, match="sentence vectors need a text layer; pass --text-layer"):
        tiny_model(3, text_layer=False, word_sum=False, hidden_size=6)
    with pytest.raises(InputError, match="sum of word embeddings needs a text layer; pass --no-wo"):
        tiny_model(text_layer=False)


def test_a_batch_with_one_image_has_a_finite_gradient():
    """The share of a process in a small last batch may be two captions of the same image."""
    for loss in ("infonce", "hinges", "hardest"):
        model, batch = tiny_model(loss=loss), tiny_batch()
        one = Texts(TOKENS[:2]), torch.zeros(2, dtype=torch.long)
        value = model(JointBatch(batch.images[:1], True, *one)).value
        value.backward()
        assert value.isfinite()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_scores_are_not_rounded_to_bfloat16():
    model, batch = tiny_model(temperature=0.01).eval(), tiny_batch()
    with torch.autocast("cpu", torch.bfloat16):
        rows = model.encode_images(batch.images), model.encode_texts(batch.texts)
        found = model.loss(batch).value
    expected = info_nce(rows[0] @ rows[1].T * 100, IMAGE_OF_TEXT) / 5
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("loss", ["infonce", "hinges", "hardest"])
def test_all_trained_parameters_get_a_gradient(loss):
    """DistributedDataParallel fails at the second step otherwise."""
    model = tiny_model(loss=loss)
    model(tiny_batch()).value.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)


@pytest.mark.parametrize("vector_size", [0, 3])
def test_a_batch_moves_as_a_whole(vector_size, monkeypatch):
    own = torch.ones(3, 5, dtype=torch.bool)
    batch = tiny_batch(vector_size, wrong_texts=Texts(TOKENS), own=own)
    moved = batch.to(torch.device("meta"))
    tensors = [moved.images, moved.texts.tokens, moved.image_of_text, moved.wrong_texts.tokens]
    tensors.append(moved.own)
    tensors += [moved.texts.vectors] if vector_size else []
    assert all(tensor.is_meta for tensor in tensors)
    assert (moved.ids, moved.are_features) == (batch.ids, True)
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: pinned.append(t) or t)
    assert batch.pin_memory().ids == batch.ids
    assert len(pinned) == len(tensors)


@pytest.mark.parametrize("name", ["dropout", "word_dropout"])
def test_dropout_acts_in_training_only(name):
    model, batch = tiny_model(**{name: 0.5}), tiny_batch()
    assert not torch.equal(model.encode_texts(batch.texts), model.encode_texts(batch.texts))
    model.eval()
    assert torch.equal(model.encode_texts(batch.texts), model.encode_texts(batch.texts))


def test_a_grid_keeps_where_features_are():
    options = {"image_grid": 2, "image_scaling": "none", "similarity": "dot"}
    encoder = nn.Identity()
    model = JointEmbedding(3, 10, 0, JointOptions(**options), encoder).eval()
    maps = torch.rand(2, 3, 4, 6)
    cells = [maps[:, :, r : r + 2, c : c + 3].mean((2, 3)) for r in (0, 2) for c in (0, 3)]
    vectors = torch.stack(cells, 2).flatten(1)  # channel after channel, each row by row
    torch.testing.assert_close(model.encode_images(maps), model.image(vectors))
    assert model.features == "maps"
    assert tiny_model().features == "pooled"
    with pytest.raises(
        InputError, match="features must have 2 or 4 dimensions if image_grid > 1, got 3"
    ):
        model.encode_images(torch.rand(2, 2, 3))


def test_channels_that_are_zero_have_a_finite_gradient():
    maps = torch.zeros(2, 8, 3, 3)
    maps[:, 0] = 1
    maps.requires_grad_()
    image_vectors(maps)[:, 0].sum().backward()
    assert maps.grad.isfinite().all()


def test_dropped_words_count_as_padding():
    """Other words keep their places, so that the GRU reads the same number of steps."""
    model = tiny_model(word_dropout=0.4)
    torch.manual_seed(2)
    shares = 2 * 0.4 * torch.rand((5, 1))
    kept = torch.rand(TOKENS.shape) >= shares
    torch.manual_seed(2)
    expected = model.encode_texts(Texts(TOKENS))
    model.eval()
    words, lengths = TOKENS.masked_fill(~kept, 0), (TOKENS != 0).sum(1).tolist()
    for row, (tokens, length) in enumerate(zip(words, lengths, strict=True)):
        parts = [state_after(model, tokens[:length])]
        parts.append(model.words(tokens).sum(0) / length**0.5)
        torch.testing.assert_close(expected[row], F.normalize(model.text(torch.cat(parts)), dim=0))

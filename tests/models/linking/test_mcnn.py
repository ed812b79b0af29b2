"""The multimodal CNN against the unsplit network written plainly, its gate, loss and scores."""

import sys

import pytest
import torch
from torch import nn

from captioner.errors import InputError
from captioner.models.linking import mcnn
from captioner.models.linking.contrastive import RELATIVE, info_nce
from captioner.models.linking.joint import JointBatch
from captioner.models.linking.linear import image_vectors
from captioner.models.linking.mcnn import MultimodalCNN
from captioner.models.linking.mcnn_start import START, start_as_similarity
from captioner.models.linking.options import LEVELS, MCNN_LOSSES, McnnOptions
from captioner.models.linking.texts import Texts

SIZES = {"word_size": 5, "image_dimensions": 4, "maps": 6, "hidden_size": 7}
LENGTHS = (1, 2, 3, 5, 8, 0, 13, 4, 9)
IMAGE_OF_TEXT = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3, 4])


def tiny_model(level="word", **options):
    torch.manual_seed(0)
    options = SIZES | {"dropout": 0.0, "word_dropout": 0.0} | options
    model = MultimodalCNN(8, 30, McnnOptions(level=level, **options), nn.Identity())
    for layer in model.layers:  # so that the bias of a window of padding would show
        nn.init.uniform_(layer.bias, 0.1, 0.5)
    return model


def tiny_texts():
    tokens = torch.randint(1, 30, (len(LENGTHS), 15), generator=torch.Generator().manual_seed(1))
    for row, length in zip(tokens, LENGTHS, strict=True):
        row[length:] = 0
    return Texts(tokens)


def tiny_images():
    return torch.rand(5, 2, 8, generator=torch.Generator().manual_seed(2))


def tiny_batch(**others):
    ids = tuple("abcde")
    return JointBatch(tiny_images(), True, tiny_texts(), IMAGE_OF_TEXT, ids, **others)


@torch.no_grad()
def unsplit_score(model, features, tokens):
    """The score of one pair: every layer reads its whole input, one window at a time."""
    vector = image_vectors(features[None])[0] * 8**0.5
    image = model.image(vector).relu()

    def layer(number, parts):
        weight = model.layers[number].weight
        if number == LEVELS.index(model.options.level):
            weight, parts = torch.cat([weight, model.image_layer.weight], 1), [*parts, image]
        return (weight @ torch.cat(parts) + model.layers[number].bias).relu()

    units = [(model.words.weight[token], bool(token)) for token in tokens.tolist()]
    for number, pooled in ((0, 2), (1, 2), (2, len(units))):
        padding = (torch.zeros_like(units[0][0]), False)
        found = []
        for start in range(len(units)):
            window = [*units, padding, padding][start : start + 3]
            is_open = any(real for _, real in window)
            value = layer(number, [unit for unit, _ in window])
            found.append((value if is_open else torch.zeros_like(value), is_open))
        groups = [found[start : start + pooled] for start in range(0, len(found), pooled)]
        units = [
            (torch.stack([v for v, _ in group]).amax(0), any(real for _, real in group))
            for group in groups
        ]
    return model.output(layer(3, [units[0][0]]))[0]


@pytest.mark.parametrize("pair_maps", [None, 4])
@pytest.mark.parametrize("level", LEVELS)
def test_the_split_network_is_the_unsplit_one(level, pair_maps):
    model = tiny_model(level, pair_maps=pair_maps).eval()
    texts, images = tiny_texts(), tiny_images()
    found = model.score_matrix(model.image_parts(images), texts)
    expected = [[unsplit_score(model, i, t) for t in texts.tokens] for i in images]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)
    assert found.std() > 0.01


@pytest.mark.parametrize(
    ("level", "maps"),
    [("word", [6, 3, 3]), ("phrase", [6, 6, 3]), ("long-phrase", [6] * 3), ("sentence", [6] * 3)],
)
def test_the_convolutions_of_each_pair_have_maps_of_their_own(level, maps):
    layers = tiny_model(level, pair_maps=3).layers
    assert [layer.out_features for layer in layers] == [*maps, SIZES["hidden_size"]]
    with pytest.raises(InputError, match="pair_maps must be at least 1, got 0"):
        McnnOptions(pair_maps=0)


@pytest.mark.parametrize(
    ("maps", "given", "above"), [(6, None, 6), (600, None, 200), (600, 300, 300), (6, 9, 9)]
)
def test_the_maps_of_each_pair_are_few_by_default(maps, given, above):
    assert McnnOptions(maps=maps, pair_maps=given).maps_above == above


@pytest.mark.parametrize("level", LEVELS)
def test_padding_does_not_change_a_score(level):
    model, images = tiny_model(level).eval(), tiny_model(level).image_parts(tiny_images())
    wide = tiny_texts()
    expected = model.merge(images[:, None], model.text_parts(wide))
    for row, length in enumerate(LENGTHS):
        alone = Texts(wide.tokens[row : row + 1, : max(1, length)])
        found = model.merge(images[:, None], model.text_parts(alone))[:, 0]
        torch.testing.assert_close(found, expected[:, row], atol=1e-5, rtol=0)


def test_a_window_of_padding_yields_zeros():
    """Of two real words, the last two windows begin at the second word and after it."""
    model = tiny_model("phrase").eval()
    sums, gates = model.text_parts(Texts(torch.tensor([[4, 5, 0, 0, 0, 0, 0, 0]])))
    assert gates.tolist() == [[True, False]]
    assert (sums[0, 1] == -torch.inf).all()
    assert sums[0, 0].isfinite().all()
    empty = model.text_parts(Texts(torch.zeros(1, 4, dtype=torch.long)))
    assert (empty.sums == -torch.inf).all()
    nothing = torch.zeros(model.options.maps)  # what is above the gates reads nothing but zeros
    hidden = model.layers[3](nothing).relu()
    for image in model.image_parts(tiny_images()):
        torch.testing.assert_close(model.merge(image, empty)[0], model.output(hidden)[0])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("chunk", "at_once"), [(1, 2), (4, 3), (7, 256), (1000, 4)])
def test_chunks_equal_the_whole(level, chunk, at_once, monkeypatch):
    model, texts = tiny_model(level).eval(), tiny_texts()
    images = model.image_parts(tiny_images())
    whole = model.merge(images[:, None], model.text_parts(texts))
    monkeypatch.setattr(mcnn, "TEXTS_AT_ONCE", at_once)
    found = model.score_matrix(images, texts, chunk=chunk)
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=0)
    pairs = torch.tensor([(i, n) for i in range(5) for n in range(9) if (i + n) % 3])
    pairs = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(3))]
    found = model.score_pairs(images, texts, pairs, chunk=chunk)
    torch.testing.assert_close(found, whole[pairs[:, 0], pairs[:, 1]], atol=1e-5, rtol=0)


def test_nothing_to_score():
    model = tiny_model().eval()
    images, none = model.image_parts(tiny_images()), Texts(torch.zeros(0, 1, dtype=torch.long))
    assert model.score_matrix(images, none).shape == (5, 0)
    assert model.score_matrix(images[:0], tiny_texts()).shape == (0, 9)
    assert model.score_pairs(images, tiny_texts(), torch.zeros(0, 2, dtype=torch.long)).shape == (
        0,
    )


def test_progress_is_shown_on_request(capsys, monkeypatch):
    model = tiny_model().eval()
    images = model.image_parts(tiny_images())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    model.score_matrix(images, tiny_texts())
    assert capsys.readouterr().err == ""
    model.score_matrix(images, tiny_texts(), show_progress=True)
    assert "/45 [" in capsys.readouterr().err


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("equal", [False, True])
def test_the_default_loss_is_info_nce_of_all_scores(level, equal):
    model = tiny_model(level, negatives=100, temperature=0.3).eval()
    own = torch.arange(5)[:, None] == IMAGE_OF_TEXT
    if equal:  # text 8 is equal to a caption of image 1
        own[1, 8] = True
    batch = tiny_batch(own=own) if equal else tiny_batch()
    found = model.loss(batch)
    scores = model.score_matrix(model.image_parts(batch.images), batch.texts)
    expected = info_nce(scores / 0.3, IMAGE_OF_TEXT, own) / 9
    torch.testing.assert_close(found.value, expected, atol=1e-5, rtol=0)
    assert (found.count, found.parts) == (9, {})


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("equal", [False, True])
def test_the_loss_is_the_mean_hinge_of_both_sides(level, equal):
    """With all shifts, every text meets the image of every other text once."""
    model = tiny_model(level, loss="hinges", negatives=100, margin=0.7).eval()
    own = torch.arange(5)[:, None] == IMAGE_OF_TEXT
    if equal:  # text 8 is equal to a caption of image 1
        own[1, 8] = True
    batch = tiny_batch(own=own) if equal else tiny_batch()
    images = model.image_parts(batch.images)
    scores = model.score_matrix(images, batch.texts).tolist()
    values, owners = [], IMAGE_OF_TEXT.tolist()
    for n, owner in enumerate(owners):
        for m, other in enumerate(owners):
            if m != n and not own[other, n]:
                wrong = scores[other][n]
                values += [0.7 - scores[owner][n] + wrong, 0.7 - scores[other][m] + wrong]
    found = model.loss(batch)
    expected = sum(max(0.0, value) for value in values) / len(values)
    assert found.count == 9
    assert float(found.value.detach()) == pytest.approx(expected, abs=1e-5)
    assert float(found.parts[RELATIVE]) == pytest.approx(expected / 0.7, abs=1e-5)


def test_few_negatives_of_hinges_are_drawn_from_the_batch():
    """Their mean over many draws is that over all negatives."""
    model, batch = tiny_model("sentence", loss="hinges", negatives=2).eval(), tiny_batch()
    torch.manual_seed(4)
    found = torch.stack([model.loss(batch).value.detach() for _ in range(300)])
    everything = (
        tiny_model("sentence", loss="hinges", negatives=100).eval().loss(batch).value.detach()
    )
    assert found.std() > 0
    assert float(found.mean()) == pytest.approx(float(everything), rel=0.05)


def test_pairs_scored_one_by_one_give_the_same_loss_and_gradient(monkeypatch):
    """With 4 negatives of 4, all pairs are needed; they are gathered instead of broadcast."""
    model, batch = tiny_model("phrase", negatives=4), tiny_batch()
    found = []
    for dense in (0.5, 1.0):
        monkeypatch.setattr(mcnn, "DENSE", dense)
        monkeypatch.setattr(mcnn, "CHUNK", 7)
        model.zero_grad()
        value = model.loss(batch).value
        value.backward()
        found.append([value.detach(), *(p.grad.clone() for p in model.parameters())])
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)


def test_few_negatives_are_drawn_from_the_batch(monkeypatch):
    """Only these pairs are scored, besides those of texts and their images."""
    model, batch, scored = tiny_model("sentence", negatives=2).eval(), tiny_batch(), []
    merge = model.merge
    monkeypatch.setattr(model, "merge", lambda *parts: scored.append(merge(*parts)) or scored[-1])
    monkeypatch.setattr(mcnn, "DENSE", 0.7)
    torch.manual_seed(4)
    losses = torch.stack([model.loss(batch).value.detach() for _ in range(20)])
    assert losses.std() > 0
    assert [len(scores) for scores in scored] == [9 * 3] * 20


@pytest.mark.parametrize(
    ("level", "given", "most"),
    [
        ("sentence", None, None),
        ("long-phrase", None, None),
        ("phrase", None, 32),
        ("word", None, 16),
        ("sentence", 3, 3),
        ("word", 40, 40),
    ],
)
def test_lower_levels_compare_fewer_pairs_by_default(level, given, most):
    assert McnnOptions(level=level, negatives=given).most_negatives == most


def test_scaled_inputs_start_as_unscaled_ones():
    """Embeddings start smaller and are multiplied by the same factor."""
    plain, scaled = (tiny_model(scale_inputs=scaled).eval() for scaled in (False, True))
    torch.testing.assert_close(scaled.words.weight * 5**0.5, plain.words.weight)
    found, expected = (model.text_parts(tiny_texts()).sums for model in (scaled, plain))
    torch.testing.assert_close(found, expected)


def test_gradients_of_rows_taken_many_times_are_complete_in_bfloat16():
    """A row of bfloat16 that is taken 1000 times would otherwise get a gradient of 256."""
    weight = torch.ones(2, 3, requires_grad=True)
    mcnn.take(weight.bfloat16(), torch.zeros(1000, dtype=torch.long)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1000.0] * 3, [0.0] * 3]


@pytest.mark.parametrize("level", LEVELS)
def test_training_ranks_every_text_first(level):
    model, batch = tiny_model(level, negatives=8, maps=16, hidden_size=16), tiny_batch()
    tokens = batch.texts.tokens.clone()
    tokens[5, :2] = torch.tensor([3, 4])  # a text without words belongs to no image
    batch = JointBatch(batch.images, True, Texts(tokens), IMAGE_OF_TEXT)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        model(batch).value.backward()
        optimizer.step()
    scores = model.eval().score_matrix(model.image_parts(batch.images), batch.texts)
    assert scores.argmax(0).equal(IMAGE_OF_TEXT)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loss", MCNN_LOSSES)
def test_all_trained_parameters_get_a_finite_gradient(level, loss):
    """DistributedDataParallel fails at the second step otherwise; one text has no negatives."""
    for few in (
        tiny_batch(),
        JointBatch(
            tiny_images()[:1], True, tiny_texts().take(torch.tensor([3])), torch.tensor([0])
        ),
    ):
        model = tiny_model(level, loss=loss, dropout=0.2, word_dropout=0.3)
        model(few).value.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ["dropout", "word_dropout"])
def test_dropout_acts_in_training_only(name):
    model, texts = tiny_model("sentence", **{name: 0.5}), tiny_texts()
    assert not torch.equal(model.text_parts(texts).sums, model.text_parts(texts).sums)
    model.eval()
    assert torch.equal(model.text_parts(texts).sums, model.text_parts(texts).sums)


def test_images_are_read_from_maps_or_pooled_features():
    model, maps = tiny_model().eval(), torch.rand(2, 8, 3, 4)
    pooled = torch.stack([maps.mean((2, 3)), maps.amax((2, 3))], 1)
    torch.testing.assert_close(model.image_parts(maps), model.image_parts(pooled))
    assert model.features == "pooled"
    grid = tiny_model(image_grid=2)
    assert (grid.features, grid.image.in_features) == ("maps", 32)
    assert grid.image_parts(maps).shape == (2, 6)
    with pytest.raises(
        InputError, match="image features must have 2 or 4 dimensions if image_grid > 1, got 3"
    ):
        grid.image_parts(pooled)


def test_image_vectors_are_standardised_by_those_of_training():
    model, features = tiny_model(), torch.rand(40, 2, 8) + 1
    model.measure_images(features.split(7))
    vectors = image_vectors(features)
    expected = (vectors - vectors.mean(0)) / vectors.std(0, correction=0)
    torch.testing.assert_close(
        model.read_images(features), model.image(expected).relu(), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_a_model_starts_as_a_similarity():
    """|a + b| - |a - b| of the inputs of text and image, summed, at the level of sentences."""
    options = McnnOptions(hidden_size=11, **{k: v for k, v in SIZES.items() if k != "hidden_size"})
    model = MultimodalCNN(8, 30, options, nn.Identity()).eval()
    start_as_similarity(model)
    images, texts = model.image_parts(tiny_images()), model.text_parts(tiny_texts())
    b, a = images[:, None, :8:4], texts.sums[:, 0, :8:4]
    expected = ((a + b).abs() - (a - b).abs()).sum(-1) * START / 11**0.5
    torch.testing.assert_close(model.merge(images[:, None], texts), expected)


@pytest.mark.parametrize("level", LEVELS[:-1])
@torch.no_grad()
def test_the_layers_above_pass_on_the_similarity(level):
    """Before training, more texts prefer the images whose vectors are like theirs."""
    torch.manual_seed(0)
    sizes = {"word_size": 16, "image_dimensions": 48, "maps": 64, "hidden_size": 64}
    options = McnnOptions(level=level, pair_maps=32, **sizes)
    model = MultimodalCNN(8, 200, options, nn.Identity()).eval()
    start_as_similarity(model)
    tokens = torch.randint(1, 200, (100, 3))
    units, gates = model.words(tokens), tokens != 0
    for number in range(model.merging):
        sums, gates = model._layer(number, units, gates)
        units = sums.relu()
    sums, _ = model._layer(model.merging, units, gates)
    likes = sums.amax(-2)[:, ::4]  # an image part that is like the largest a of each text
    parts = torch.stack([likes, -likes, likes, -likes], -1).flatten(-2)
    scores = model.merge(parts[:, None], model.text_parts(Texts(tokens)))
    own = scores.diagonal()[:, None]
    assert (own >= scores).float().mean() > 0.7


@pytest.mark.parametrize("level", LEVELS[1:])
@torch.no_grad()
def test_a_text_starts_as_its_words(level):
    """Two texts of the same words in another order differ less than texts of other words."""
    torch.manual_seed(0)
    options = McnnOptions(level=level, word_size=16, image_dimensions=48, maps=64, hidden_size=64)
    model = MultimodalCNN(8, 200, options, nn.Identity()).eval()

    def other_words_over_other_order():
        tokens = torch.randint(1, 200, (100, 9))
        turned, changed = tokens.flip(1), torch.randint(1, 200, (100, 9))
        parts = [model.text_parts(Texts(each)).sums.amax(1) for each in (tokens, turned, changed)]
        order, words = ((parts[0] - other).square().mean() for other in parts[1:])
        return float(words / order)

    before = other_words_over_other_order()
    start_as_similarity(model)
    assert other_words_over_other_order() > max(1.5, 1.3 * before)


def test_there_are_no_embeddings():
    model = tiny_model()
    message = "^an m-CNN scores pairs and has no embeddings; use it to re-rank the results of"
    with pytest.raises(InputError, match=message):
        model.encode_images(tiny_images())
    with pytest.raises(InputError, match=message):
        model.encode_texts(tiny_texts())
    with pytest.raises(InputError, match=message):
        model.dimensions  # noqa: B018


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "letter"}, "^level must be one of word, phrase, long-phrase, sentence, got 'le"),
        ({"maps": 0}, "^maps must be at least 1, got 0"),
        ({"negatives": 0}, "^negatives must be at least 1, got 0"),
        ({"margin": -1.0}, "^margin must be at least 0, got -1"),
        ({"temperature": 0.0}, "^temperature must be at least 0.001, got 0"),
        ({"loss": "hinge"}, "^loss must be one of infonce, hinges, got 'hinge'"),
        ({"dropout": 1.0}, "^dropout must be at least 0 and below 1, got 1"),
        ({"word_dropout": 0.6}, "^word_dropout must be from 0 to 0.5, got 0.6"),
    ],
)
def test_invalid_options(options, message):
    with pytest.raises(InputError, match=message):
        McnnOptions(**options)

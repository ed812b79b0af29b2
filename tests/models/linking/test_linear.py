"""The linear map: its ranking loss against loops, training, and the closed-form fit."""

import pytest
import torch
import torch.nn.functional as F

from captioner.errors import InputError
from captioner.models.linking.cca import fit_cca
from captioner.models.linking.linear import LinearMap, PairBatch
from captioner.models.linking.options import LinearOptions

IMAGE_OF_TEXT = torch.tensor([2, 0, 0, 3, 2, 0])  # image 1 has no text


def tiny_model(**options):
    torch.manual_seed(0)
    return LinearMap(5, 4, LinearOptions(dimensions=3, **options))


def tiny_batch():
    generator = torch.Generator().manual_seed(1)
    images, texts = torch.randn(4, 5, generator=generator), torch.randn(6, 4, generator=generator)
    return PairBatch(images, texts, IMAGE_OF_TEXT, ("a", "b", "c", "d"))


@pytest.mark.parametrize("margin", [0.0, 0.2, 1.5])
def test_loss_is_the_sum_of_hinges_over_wrong_pairs(margin):
    model, batch = tiny_model(margin=margin), tiny_batch()
    with torch.no_grad():
        images, texts = model.image(batch.images), model.text(batch.texts)
    expected = 0.0
    for n, own in enumerate(IMAGE_OF_TEXT.tolist()):
        right = F.cosine_similarity(images[own], texts[n], dim=0)
        for image in range(4):
            if image != own:
                wrong = F.cosine_similarity(images[image], texts[n], dim=0)
                expected += max(0.0, float(margin - right + wrong))
        for m, other in enumerate(IMAGE_OF_TEXT.tolist()):
            if other != own:
                wrong = F.cosine_similarity(images[own], texts[m], dim=0)
                expected += max(0.0, float(margin - right + wrong))
    found = model.loss(batch)
    assert found.count == 6
    assert found.value.item() == pytest.approx(expected / 6, rel=1e-5)


def test_training_reaches_the_margin():
    model, batch = tiny_model(solver="ranking"), tiny_batch()
    # Texts of one image are alike.
    batch = PairBatch(batch.images, batch.texts[IMAGE_OF_TEXT], IMAGE_OF_TEXT)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        model(batch).value.backward()
        optimizer.step()
    assert model(batch).value.item() == 0
    scores = model.encode_images(batch.images) @ model.encode_texts(batch.texts).T
    assert scores.argmax(0).equal(IMAGE_OF_TEXT)


def test_fit_sets_the_maps_of_canonical_correlations():
    generator = torch.Generator().manual_seed(2)
    images, texts = torch.randn(50, 5, generator=generator), torch.randn(50, 4, generator=generator)
    rows = torch.arange(50)
    model = tiny_model(ridge=0.3, correlation_power=2.0)
    correlations = model.fit(images, texts, rows)
    image_map, text_map, expected = fit_cca(images, texts, rows, dimensions=3, ridge=0.3, power=2.0)
    assert correlations.equal(expected)
    for encode, affine, vectors in (
        (model.encode_images, image_map, images),
        (model.encode_texts, text_map, texts),
    ):
        unit = F.normalize(vectors @ affine.weight.T + affine.bias, dim=1)
        torch.testing.assert_close(encode(vectors), unit)
        torch.testing.assert_close(encode(vectors).norm(dim=1), torch.ones(50))


def test_a_batch_moves_as_a_whole():
    batch = tiny_batch().to(torch.device("meta"))
    assert [batch.images.device.type, batch.texts.device.type] == ["meta", "meta"]
    assert (batch.image_of_text.device.type, batch.ids) == ("meta", ("a", "b", "c", "d"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("dimensions", 0), ("ridge", -0.1), ("margin", -1.0), ("correlation_power", float("nan"))],
)
def test_options_are_checked(name, value):
    with pytest.raises(
        InputError, match=f"^{name} must be (finite and )?at least [01], got {value}$"
    ):
        LinearOptions(**{name: value})

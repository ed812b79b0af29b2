"""Regression of text vectors: losses by hand, and the space of images and texts."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.preprocessing import minmax_scale

from captioner.models.linking.options import REGRESSION_LOSSES, RegressionOptions
from captioner.models.linking.regression import RegressionBatch, TextRegression, min_max
from captioner.models.linking.texts import Texts

OWNER = torch.tensor([0, 0, 1, 2])


def build(**options):
    torch.manual_seed(0)
    return TextRegression(5, 4, RegressionOptions(**options)).eval()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    vectors = F.normalize(torch.randn(4, 4), dim=1)
    return RegressionBatch(torch.randn(3, 5), True, vectors, OWNER, ("a", "b", "c"))


def outputs(model, images):
    with torch.no_grad():
        return images @ model.image.weight.T + model.image.bias


def test_ranking_sums_the_hinges_of_all_wrong_pairs(batch):
    model = build(margin=0.3)
    cosines = F.normalize(outputs(model, batch.images), dim=1) @ batch.vectors.T
    expected = 0.0
    for text, own in enumerate(OWNER.tolist()):
        right = cosines[own, text]
        wrong = [cosines[i, text] for i in range(3) if i != own]
        wrong += [cosines[own, other] for other in range(4) if OWNER[other] != own]
        expected += sum(max(0.0, 0.3 - float(right) + float(each)) for each in wrong)
    loss = model.loss(batch)
    assert loss.count == 4
    assert loss.value.item() == pytest.approx(expected / 4, rel=1e-5)


def test_contrastive_classifies_texts_and_images(batch):
    model = build(loss="contrastive", temperature=0.1)
    scores = F.normalize(outputs(model, batch.images), dim=1) @ batch.vectors.T / 0.1
    expected = 0.0
    for text, own in enumerate(OWNER.tolist()):
        others = [o for o in range(4) if OWNER[o] != own] + [text]
        expected -= float(scores[:, text].log_softmax(0)[own])
        expected -= float(scores[own, others].log_softmax(0)[-1])
    assert model.loss(batch).value.item() == pytest.approx(expected / 2 / 4, rel=1e-5)


def test_bce_compares_sigmoids_with_min_max_targets(batch):
    model = build(loss="bce")
    shares = torch.sigmoid(outputs(model, batch.images))[OWNER].double()
    targets = torch.from_numpy(minmax_scale(batch.vectors.double().numpy(), axis=1))
    expected = -(targets * shares.log() + (1 - targets) * (1 - shares).log()).sum() / 4
    assert model.loss(batch).value.item() == pytest.approx(float(expected), rel=1e-5)
    rows = model.encode_texts(batch.vectors)
    torch.testing.assert_close(rows, F.normalize(targets.float(), dim=1))
    torch.testing.assert_close(
        model.encode_images(batch.images)[OWNER], F.normalize(shares.float(), dim=1)
    )


def test_constant_vectors_become_zero():
    torch.testing.assert_close(
        min_max(torch.tensor([[0.0, 0, 0], [2, 1, 3]])), torch.tensor([[0.0, 0, 0], [0.5, 0, 1]])
    )


@pytest.mark.parametrize("loss", REGRESSION_LOSSES)
@pytest.mark.parametrize("hidden", [0, 6])
def test_embeddings_have_norm_1_and_every_trained_parameter_a_gradient(batch, loss, hidden):
    model = build(loss=loss, hidden_size=hidden)
    for rows in (
        model.encode_images(batch.images),
        model.encode_texts(Texts(vectors=batch.vectors)),
    ):
        np.testing.assert_allclose(rows.detach().norm(dim=1), 1, rtol=1e-5)
        assert rows.shape[1] == model.dimensions == 4
    model.loss(batch).value.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_texts_are_not_changed_by_training(batch):
    model = build()
    before = model.encode_texts(batch.vectors)
    torch.testing.assert_close(before, batch.vectors)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model.loss(batch).value.backward()
    optimizer.step()
    assert torch.equal(model.encode_texts(batch.vectors), before)


def test_a_hidden_layer_can_learn_what_a_linear_one_cannot():
    """Images of exclusive or: the text depends on whether both inputs have the same sign."""
    images = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    texts = torch.tensor([[1.0, 0], [-1, 0], [-1, 0], [1, 0]])
    losses = {}
    for hidden in (0, 16):
        torch.manual_seed(0)
        model = TextRegression(2, 2, RegressionOptions(loss="bce", hidden_size=hidden))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(200):
            loss = model.loss(RegressionBatch(images, True, texts, torch.arange(4))).value
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[hidden] = float(loss.detach())
    assert losses[16] < 0.1 < 0.5 < losses[0]


def test_batches_move_to_a_device(batch):
    moved = batch.to(torch.device("meta"))
    assert {t.device.type for t in (moved.images, moved.vectors, moved.image_of_text)} == {"meta"}
    assert moved.ids == batch.ids

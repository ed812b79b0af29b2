"""The spatial embedding against plain loops."""

import math

import numpy as np
import pytest
import torch

from captioner.errors import InputError
from captioner.models.linking.options import SpatialOptions
from captioner.models.linking.spatial import SpatialBatch, SpatialEmbedding

B, L, K, D, E, H, W = 2, 3, 4, 6, 5, 2, 3


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = SpatialEmbedding(D, E, SpatialOptions(blocks=K, head_size=7, cell_dropout=0.0), None)
    torch.nn.init.normal_(made.output.bias)
    torch.nn.init.normal_(made.mix)
    return made


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def plain_maps(model, features, vectors):
    """Logits by loops over images, labels and cells; vectors (B, L, E)."""
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    weight = state["blocks.weight"][..., 0, 0].reshape(K, E, D)
    bias = state["blocks.bias"].reshape(K, E)
    hidden, output = state["hidden.weight"], state["output.weight"][0]
    maps = np.zeros((len(features), vectors.shape[1], H, W))
    for b, label, y, x in np.ndindex(maps.shape):
        cosines = []
        for k in range(K):
            region = unit(weight[k] @ features[b, :, y, x] + bias[k])
            cosines.append(math.exp(state["log_gain"]) * region @ vectors[b, label])
        units = np.maximum(0, hidden @ np.array(cosines) + state["hidden.bias"])
        maps[b, label, y, x] = output @ units + state["output.bias"][0]
    return maps


def inputs(seed=0):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(B, D, H, W))
    return features, unit(generator.normal(size=(B, L, E)))


def tensor(array):
    return torch.from_numpy(array).float()


def test_label_maps_match_a_loop(model):
    features, vectors = inputs()
    regions = model.regions(tensor(features))
    assert regions.shape == (B, K, E, H, W)
    torch.testing.assert_close(regions.norm(dim=2), torch.ones(B, K, H, W))
    found = model.map_logits(regions, tensor(vectors)).detach()
    np.testing.assert_allclose(found, plain_maps(model, features, vectors), atol=1e-5)
    shared = model.map_logits(regions, tensor(vectors[0])).detach()  # labels of all images
    expected = plain_maps(model, features, np.repeat(vectors[:1], B, 0))
    np.testing.assert_allclose(shared, expected, atol=1e-5)


def test_score_and_loss_match_a_loop(model):
    features, vectors = inputs()
    maps = plain_maps(model, features, vectors)
    share = 1 / (1 + math.exp(-model.mix.item()))
    scores = share * maps.max((2, 3)) + (1 - share) * maps.mean((2, 3))
    targets, weights = np.array([[1, 0, 0], [1, 1, 0]]), np.array([[1, 1, 1], [1, 1, 0]])
    probability = 1 / (1 + np.exp(-scores))
    losses = -np.where(targets == 1, np.log(probability), np.log(1 - probability))
    batch = SpatialBatch(
        tensor(features), True, tensor(vectors), tensor(targets), tensor(weights), (1, 2)
    )
    loss = model.loss(batch)
    assert loss.value.item() == pytest.approx((losses * weights).sum() / 5, rel=1e-5)
    assert loss.count == B


def test_an_image_is_the_mean_of_its_regions(model):
    features, _ = inputs()
    model.centre.copy_(torch.linspace(-0.1, 0.1, E))
    regions = model.regions(tensor(features)).detach().numpy()
    expected = unit(regions.mean((1, 3, 4)) - model.centre.numpy())
    found = model.encode_images(tensor(features)).detach()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_centre_follows_the_mean_region(model):
    features, vectors = inputs()
    ones = torch.ones(B, L)
    batch = SpatialBatch(tensor(features), True, tensor(vectors), ones, ones)
    for _ in range(400):
        model.update_statistics(model.loss(batch).statistics)
    expected = model.regions(tensor(features)).mean((0, 1, 3, 4))
    torch.testing.assert_close(model.centre, expected, atol=1e-3, rtol=0)


def test_training_in_bfloat16(model):
    features, vectors = inputs()
    ones = torch.ones(B, L)
    batch = SpatialBatch(tensor(features), True, tensor(vectors), ones, ones)
    expected = model.loss(batch).value
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(batch)
    loss.value.backward()
    model.update_statistics(loss.statistics)
    torch.testing.assert_close(loss.value, expected, rtol=0.05, atol=0.05)


def test_swapped_halves_swap_their_maps(model):
    """Every cell keeps its own evidence: a composite with swapped halves has swapped maps."""
    features, vectors = inputs()
    one, other = tensor(features)
    composite = torch.stack([torch.cat([one, other], 2), torch.cat([other, one], 2)])
    maps = model.map_logits(model.regions(composite), tensor(vectors[0]))
    swapped = torch.cat([maps[1, ..., W:], maps[1, ..., :W]], -1)
    torch.testing.assert_close(maps[0], swapped)


def test_a_larger_cosine_is_a_larger_score_at_first():
    fresh = SpatialEmbedding(D, E, SpatialOptions(blocks=K), None)
    low, high = (fresh.head(torch.full((1, K, 1, 1), c), (1, 1)) for c in (0.2, 0.9))
    assert high > low


def test_the_initial_share_of_the_maximum():
    fresh = SpatialEmbedding(D, E, SpatialOptions(blocks=K, max_share=0.75), None)
    score = fresh.score_logits(torch.tensor([[[[0.0, 4.0], [0.0, 0.0]]]]))
    assert score.item() == pytest.approx(0.75 * 4 + 0.25 * 1)


def test_hidden_cells_count_nowhere():
    """A batch is trained on a random half of the cells, the same for all of its images."""
    torch.manual_seed(0)
    model = SpatialEmbedding(D, E, SpatialOptions(blocks=K, cell_dropout=0.5), None)
    features, vectors = map(tensor, inputs())
    ones = torch.ones(B, L)
    features.requires_grad_()
    model.loss(SpatialBatch(features, True, vectors, ones, ones)).value.backward()
    used = features.grad.abs().sum(1) > 0  # (B, h, w)
    assert used[0].sum() == 3
    torch.testing.assert_close(used[0], used[1])
    model.eval()
    features.grad = None
    model.loss(SpatialBatch(features, True, vectors, ones, ones)).value.backward()
    assert (features.grad.abs().sum(1) > 0).all()


def test_pooled_features_have_no_regions(model):
    with pytest.raises(InputError, match=r"regions need feature maps .* got shape \(2, 2, 6\)"):
        model.regions(torch.zeros(2, 2, D))

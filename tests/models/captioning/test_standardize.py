"""Standardisation of feature maps by the statistics of training images."""

import numpy as np
import pytest
import torch

from captioner.data.sources import FunctionSource
from captioner.models.layers import Standardize
from captioner.tasks.captioning.job import CALIBRATION, sample_maps


def draw_maps(images, seed=0):
    """Maps (B, 10, 4, 3) whose channels have different means and scales."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-0.4, 0.4, 10)[:, None, None]
    return 3 * scale.flip(0) + scale * torch.randn(images, 10, 4, 3, generator=generator)


@pytest.mark.parametrize("parts", [(30,), (1, 17, 12)])
def test_measured_maps_have_mean_0_and_deviation_1(parts):
    maps, standardize = draw_maps(30), Standardize(10)
    torch.testing.assert_close(standardize(maps), maps)  # unchanged before it has measured
    standardize.measure(maps.split(parts))
    standardized = standardize(maps).double().numpy()
    np.testing.assert_allclose(standardized.mean((0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(standardized.std((0, 2, 3)), 1, atol=1e-6)
    other = draw_maps(3, seed=1).double().numpy()
    mean, deviation = (f(maps.double().numpy(), (0, 2, 3)) for f in (np.mean, np.std))
    expected = (other - mean[:, None, None]) / deviation[:, None, None]
    np.testing.assert_allclose(standardize(torch.tensor(other).float()), expected, atol=1e-5)


def test_channels_that_hardly_vary_are_not_amplified():
    maps, standardize = draw_maps(8), Standardize(10)
    maps[:, 4] = 2.0
    standardize.measure([maps])
    assert standardize(maps)[:, 4].abs().max() < 1e-5
    assert standardize.deviation[4] == pytest.approx(
        float(maps.std((0, 2, 3)).mean()) / 10, rel=0.02
    )
    standardize.measure([torch.full((2, 10, 4, 3), 7.0)])
    assert torch.equal(standardize(maps), maps - 7)


def test_calibration_measures_a_sample_of_the_training_images(tiny_model):
    model, count = tiny_model(False), 2 * CALIBRATION + 5
    maps, read = draw_maps(count), []

    def load(indices):
        read.extend(indices)
        return maps[list(indices)].half()

    images = FunctionSource(load, are_features=True)
    model.calibrate(sample_maps(model, images, count))
    assert read == list(range(0, count, 3))
    expected = maps[::3].mean((0, 2, 3))
    torch.testing.assert_close(model.standardize.mean, expected, atol=1e-3, rtol=0)


def test_calibration_encodes_images_unless_the_encoder_is_trained_from_scratch(tiny_model):
    images = torch.rand(70, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    source = FunctionSource(lambda indices: images[list(indices)], are_features=False)
    frozen, scratch = tiny_model(False), tiny_model(False, trained_from=0)
    for model in (frozen, scratch):
        model.calibrate(sample_maps(model, source, len(images)))
    with torch.no_grad():
        expected = frozen.encoder(images).mean((0, 2, 3))
    torch.testing.assert_close(frozen.standardize.mean, expected, atol=1e-5, rtol=0)
    assert not scratch.standardize.mean.any()


def test_a_measured_model_equals_an_unmeasured_one_on_standardised_maps(
    tiny_model, features, make_batch
):
    plain, measured = tiny_model(False).eval(), tiny_model(False).eval()
    maps, batch = features(2), make_batch([[[4, 5]], [[6, 7, 8]]])
    measured.standardize.measure([draw_maps(20)])
    standard = measured.standardize(maps)
    for model, inputs in ((plain, standard), (measured, maps)):
        assert model.start(inputs, 1)[1]["hidden"].shape == (2, 11)
    expected, state = plain.start(standard, 1)[1], measured.start(maps, 1)[1]
    torch.testing.assert_close(state, expected)
    assert not torch.equal(plain.start(maps, 1)[1]["hidden"], state["hidden"])
    loss = measured.loss(batch).value
    assert loss != plain.loss(batch).value
    measured.standardize.measure([torch.zeros(1, 10, 4, 3)])  # deviations of 1 again
    torch.testing.assert_close(measured.loss(batch).value, plain.loss(batch).value)

"""Inputs of evaluations: the sample of a model's training images."""

import shutil

import pytest

from captioner.data.readers import read_captions
from captioner.evaluation.inputs import sample_training_images
from tests.support import tiny


def config(path):
    return {"data": {"path": str(path), "format": None}}


@pytest.mark.parametrize("count", [1, 3, 16, 100])
def test_a_sample_is_evenly_spaced_over_the_training_images(tmp_path_factory, tmp_path, count):
    root = tiny.data(tmp_path_factory)
    paths = [example.path for example in read_captions(root).split("train")]
    found = sample_training_images(config(root), tmp_path, count)
    assert found == paths[:: max(1, 16 // count)][:count]
    assert len(found) == min(count, 16)


def test_there_is_no_sample_without_training_data(tmp_path):
    for described in (
        None,
        config(tmp_path / "gone"),
        config(tmp_path),
        config("http://host/a.tar"),
    ):
        assert sample_training_images(described, tmp_path, 4) == []


def test_unreadable_images_and_those_left_out_in_training_are_not_in_the_sample(
    tmp_path_factory, tmp_path
):
    root = tmp_path / "colours"
    shutil.copytree(tiny.data(tmp_path_factory), root)
    examples = read_captions(root).split("train")
    examples[4].path.write_bytes(b"")
    described = config(root)
    described["data"]["left_out"] = [examples[0].id]
    found = sample_training_images(described, tmp_path, 4)  # of 15 images, in steps of 3
    assert found == [examples[i].path for i in (1, 5, 7, 10)]

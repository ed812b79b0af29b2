"""The benchmark from files to captions: what it reports of files decoded whole and reduced."""

import pytest
from PIL import Image

from benchmarks import files, service


@pytest.fixture(scope="module")
def captioner():
    return service.build("float32")


def test_both_ways_have_a_row(captioner, tmp_path):
    for name in "ab":
        Image.linear_gradient("L").resize((1024, 1024)).save(tmp_path / f"{name}.jpg")
    transform = captioner.transform
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    whole, reduced = files.compare(captioner, paths, rounds=1)
    assert [row[0].split(", ")[1] for row in (whole, reduced)] == ["whole", "reduced"]
    assert whole[-1] == "0 %"
    assert files.WholeFiles(128).least is None
    assert transform.least == 256
    assert captioner.transform is transform


def test_the_scenes_are_those_of_the_demo():
    first, second = service.draw(2)
    assert first != second
    assert first.startswith(b"\x89PNG")

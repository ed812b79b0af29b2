"""Masks in Pascal VOC's layout, and those of the demo's shapes."""

import numpy as np
import pytest
from PIL import Image

from captioner.data.demo.dataset import read_shapes, write_demo
from captioner.data.demo.masks import draw_masks, write_masks
from captioner.data.demo.shapes import KINDS, SIDE
from captioner.data.masks import VOC_CLASSES, mask_image, open_masks, voc_colors
from captioner.data.readers import read_captions
from captioner.errors import InputError


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo") / "demo"
    write_demo(root, train=2, val=12, test=0)
    return root


def write(root, mask, name="a", size=(3, 2)):
    for folder in ("JPEGImages", "SegmentationClass"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(root / "JPEGImages" / f"{name}.jpg")
    mask_image(np.array(mask)).save(root / "SegmentationClass" / f"{name}.png")


def test_masks_of_the_demo_fill_the_boxes_of_its_shapes(demo):
    shapes = read_shapes(demo, "val")
    paths = {e.path.name: e.id for e in read_captions(demo).split("val")}
    masks = dict(draw_masks(demo, "val"))
    assert masks.keys() == paths.keys()
    for name, mask in masks.items():
        covered = np.zeros((SIDE, SIDE), bool)
        for shape in shapes[paths[name]]:
            x0, y0, x1, y1 = shape.box
            inside = mask[y0:y1, x0:x1]
            assert set(np.unique(inside)) <= {0, KINDS.index(shape.kind) + 1}
            assert 0.2 < (inside > 0).mean() <= 1
            assert (inside > 0).any(0).all() or (inside > 0).any(0).sum() >= x1 - x0 - 2
            covered[y0:y1, x0:x1] = True
        assert not mask[~covered].any()


def test_masks_of_the_demo_lie_on_its_pixels(demo):
    """Around a shape, the image changes at the border of its mask."""
    name, mask = next(draw_masks(demo, "val"))
    with Image.open(demo / "val" / name) as image:
        pixels = np.asarray(image.convert("RGB"), float)
    difference = np.abs(np.diff(pixels, axis=1)).sum(2)
    border = np.diff((mask > 0).astype(int), axis=1) != 0
    assert difference[border].mean() > 4 * difference[~border].mean()


def test_masks_are_written_and_opened(demo, tmp_path):
    write_masks(demo, "val", tmp_path / "masks")
    found = open_masks(tmp_path / "masks", "val")
    assert found.classes == KINDS
    assert [path.name for path in found.images] == [path.name for path in found.masks]
    for index, (_, mask) in enumerate(draw_masks(demo, "val")):
        np.testing.assert_array_equal(found.read_mask(index, (SIDE, SIDE)), mask)


def test_other_directories_are_no_demo(tmp_path):
    with pytest.raises(InputError, match="is not a demo data set"):
        next(draw_masks(tmp_path, "val"))
    (tmp_path / "demo.json").write_text('{"seed": 0, "val": 1, "version": 1}')
    with pytest.raises(InputError, match="is version 1 of the demo data"):
        next(draw_masks(tmp_path, "val"))


def test_a_split_that_the_demo_does_not_have(demo):
    with pytest.raises(InputError, match="unknown split 'valid'; choose train, val"):
        next(draw_masks(demo, "valid"))
    assert len(dict(draw_masks(demo, "dev"))) == 12


def test_a_list_selects_the_images_of_a_split(tmp_path):
    for name in "abc":
        write(tmp_path, [[0, 1, 255], [20, 0, 0]], name)
    assert len(open_masks(tmp_path, "val").images) == 3
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("c\na\n")
    found = open_masks(tmp_path, "val")
    assert [path.stem for path in found.images] == ["c", "a"]
    assert found.classes == VOC_CLASSES
    assert found.read_mask(0, (3, 2)).tolist() == [[0, 1, 255], [20, 0, 0]]
    (lists / "val.txt").write_text("\n")
    with pytest.raises(InputError, match=r"Segmentation/val\.txt lists no images; add some, or"):
        open_masks(tmp_path, "val")
    (lists / "val.txt").write_text("gone\n")
    with pytest.raises(InputError, match=r"SegmentationClass/gone\.png is missing; add it"):
        open_masks(tmp_path, "val")


def test_unusable_masks(tmp_path):
    with pytest.raises(InputError, match="has no directory SegmentationClass; pass one"):
        open_masks(tmp_path, "val")
    (tmp_path / "SegmentationClass").mkdir()
    with pytest.raises(InputError, match=r"SegmentationClass contains no \.png files; add masks"):
        open_masks(tmp_path, "val")
    write(tmp_path, [[0, 1], [3, 0]])
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    found = open_masks(tmp_path, "val")
    with pytest.raises(InputError, match=r"has 2 x 2 pixels, but its image has 3 x 2; masks must"):
        found.read_mask(0, (3, 2))
    with pytest.raises(InputError, match="contains class 3, but only 2 classes have names"):
        found.read_mask(0, (2, 2))
    Image.new("RGB", (2, 2)).save(found.masks[0])
    with pytest.raises(InputError, match=r"must contain class numbers \(mode P or L\), got RGB"):
        found.read_mask(0, (2, 2))
    found.masks[0].write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be read"):
        found.read_mask(0, (2, 2))


def test_colours_of_pascal_voc():
    """The first entries of VOC2012's palette."""
    expected = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)]
    assert voc_colors()[:6] == expected
    assert voc_colors()[20] == (0, 64, 128)
    assert voc_colors()[255] == (224, 224, 192)

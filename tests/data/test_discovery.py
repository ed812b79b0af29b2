"""Which files all readers see: extensions, hidden files, links, encodings, spellings of names."""

import io
import os
import unicodedata

import pytest

from captioner.data.caption_files import read_caption_file
from captioner.data.discovery import is_hidden, is_image_name, walk
from captioner.data.formats.reading import read_json
from captioner.data.image_paths import find_images
from captioner.data.inspection import describe_data
from captioner.data.readers import read_captions
from captioner.errors import InputError
from tests.support.layouts import touch, write, write_jsonl, write_pairs, write_tar

HIDDEN = [
    *("._0.jpg", ".0.jpg", ".ipynb_checkpoints/0-checkpoint.jpg", "__MACOSX/._0.jpg"),
    *("a/.git/0.jpg", "__MACOSX/a/0.jpg", "@eaDir/0.jpg"),
]


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_files_are_seen_by_no_reader(tmp_path, name):
    write_pairs(tmp_path / "pairs", {"0.jpg": ["a dog"], name: ["an old dog"]})
    data = read_captions(tmp_path / "pairs")
    assert [example.id for example in data.examples] == ["0.jpg"]
    assert data.problems == ()
    assert find_images([str(tmp_path / "pairs")]) == [str(tmp_path / "pairs" / "0.jpg")]
    members = [(f"{stem}{end}", b"a dog") for stem in ("1", name[:-4]) for end in (".jpg", ".txt")]
    write_tar(tmp_path / "tar" / "0.tar", members)
    data = read_captions(tmp_path / "tar")
    assert [example.id for example in data.examples] == ["0/1"]
    assert data.problems == ()


def test_hidden_captions_and_shards_are_not_read(tmp_path):
    write_jsonl(tmp_path / "table", {"0.jpg": ["a dog"]}, "train.jsonl")
    write(tmp_path / "table" / "._train.jsonl", "\0\5\26\7")
    write(tmp_path / "table" / "._captions.jsonl", "\0\5\26\7")
    assert len(read_captions(tmp_path / "table").examples) == 1
    shard = write_tar(tmp_path / "tar" / "0.tar", [("1.jpg", b""), ("1.txt", b"a dog")])
    for other in ("._0.tar", ".ipynb_checkpoints/0.tar"):
        touch(shard.parent / other)
    assert len(read_captions(shard.parent).examples) == 1


def test_relative_directories_are_not_hidden():
    assert not any(map(is_hidden, ("../a.jpg", "./a.jpg", "a/b.c/d.jpg")))


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".mpo", ".JPG", ".avif", ".heic", ".tiff"])
def test_all_readers_know_the_same_extensions(tmp_path, suffix):
    """Images in formats that cannot be decoded fail when they are opened, and are not ignored."""
    assert is_image_name(f"a{suffix}")
    write_pairs(tmp_path / "pairs", {f"a{suffix}": ["a dog"]})
    data = read_captions(tmp_path / "pairs")
    assert [example.path.name for example in data.examples] == [f"a{suffix}"]
    assert data.problems == ()
    assert find_images([str(tmp_path / "pairs")]) == [str(tmp_path / "pairs" / f"a{suffix}")]
    write_tar(tmp_path / "tar" / "0.tar", [(f"a{suffix}", b""), ("a.txt", b"a dog")])
    assert len(read_captions(tmp_path / "tar").examples) == 1


def test_linked_directories_are_entered_once(tmp_path):
    touch(tmp_path / "disk" / "a.jpg")
    root = tmp_path / "photos"
    touch(root / "b.jpg")
    (root / "link").symlink_to(tmp_path / "disk")
    (root / "link2").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "up").symlink_to(root)  # a cycle
    assert list(walk(root)) == [str(root / "b.jpg"), str(root / "link" / "a.jpg")]


ENCODINGS = ["utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_utf16_is_named(tmp_path, encoding):
    touch(tmp_path / "a.jpg")
    rows = {
        "a.csv": "image,caption\na.jpg,a dog\n",
        "a.tsv": "image\tcaption\na.jpg\ta dog\n",
        "a.jsonl": '{"image": "a.jpg", "caption": "a dog"}\n',
    }
    for name, text in rows.items():
        (tmp_path / name).write_bytes(text.encode(encoding))
        for read in (read_captions, read_caption_file):
            with pytest.raises(InputError, match=f"{name} seems to be UTF-16 or UTF-32; save it"):
                read(tmp_path / name)
    (tmp_path / "a.json").write_bytes(b"[]".ljust(40).decode().encode(encoding))
    with pytest.raises(InputError, match="seems to be UTF-16"):
        read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match="the list of images seems to be UTF-16"):
        find_images(["-"], io.BytesIO("in/a.jpg\nin/b.jpg\n".encode(encoding)))


def test_a_byte_order_mark_in_a_list_of_images_is_dropped():
    listed = io.BytesIO(b"\xef\xbb\xbfin/a.jpg\r\nin/b.jpg\r\n")
    assert find_images(["-"], listed) == ["in/a.jpg", "in/b.jpg"]


@pytest.mark.parametrize(("listed", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_another_unicode_form_are_found(tmp_path, listed, on_disk):
    """macOS writes decomposed names into archives."""
    name = "Café läuft.jpg"
    touch(tmp_path / unicodedata.normalize(on_disk, name))
    row = f"image,caption\n{unicodedata.normalize(listed, name)},ein Café\n"
    write(tmp_path / "captions.csv", row)
    data = read_captions(tmp_path)
    assert data.examples[0].path.name == unicodedata.normalize(on_disk, name)
    assert os.path.isfile(data.examples[0].path)
    pairs = tmp_path / "pairs"
    touch(pairs / unicodedata.normalize(on_disk, name))
    write(pairs / unicodedata.normalize(listed, "Café läuft.txt"), "ein Café\n")
    data = read_captions(pairs)
    assert (data.examples[0].captions, data.problems) == (("ein Café",), ())
    members = [
        (unicodedata.normalize(on_disk, name), b""),
        (unicodedata.normalize(listed, "Café läuft.txt"), "ein Café".encode()),
    ]
    write_tar(tmp_path / "tar" / "0.tar", members)
    assert read_captions(tmp_path / "tar").examples[0].captions == ("ein Café",)


def test_names_with_dots_in_tar_files(tmp_path):
    """WebDataset ends names at the first dot; that would lose these samples."""
    members = [
        *(("a.v2.jpg", b"1"), ("a.v2.txt", b"a dog"), ("a.v3.jpg", b"2"), ("a.v3.txt", b"a cat")),
        *(("b.jpg", b"3"), ("b.txt", b"a cow"), ("b.mask.png", b"4")),
    ]
    write_tar(tmp_path / "0.tar", members)
    data = read_captions(tmp_path)
    assert {e.path.name: e.captions for e in data.examples} == {
        "a.v2.jpg": ("a dog",),
        "a.v3.jpg": ("a cat",),
        "b.jpg": ("a cow",),
    }
    assert data.notes[0].startswith("names in 0.tar with dots before the extension: 2; ")


@pytest.mark.parametrize("packed", [False, True])
def test_files_of_train_that_are_in_test_as_well_are_noted(tmp_path, packed):
    rows = {"train": ["0", "1", "2"], "test": ["3", "4"]}
    content = dict.fromkeys("01234", b"some image") | {"0": b"another", "4": b"anothel", "2": b"x"}
    for split, names in rows.items():
        members = [
            (f"{n}.{end}", content[n] if end == "jpg" else b"a dog")
            for n in names
            for end in ("jpg", "txt")
        ]
        if packed:
            write_tar(tmp_path / f"{split}.tar", members)
        for name, data in () if packed else members:
            write(tmp_path / split / name, data.decode())
    text = describe_data(read_captions(tmp_path))
    assert "note: 1 image of val or test is also in train, with the same content: " in text
    assert "3.jpg = " in text
    assert "1.jpg" in text

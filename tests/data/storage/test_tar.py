"""Members of local tar files read in place, against tarfile's own reading."""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from captioner.data.images import load_image
from captioner.data.storage import files as storage
from captioner.errors import InputError
from tests.support.layouts import write_tar


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_member_is_what_tarfile_reads(tmp_path, format):
    names = ["a.jpg", "./b.jpg", "directory/c.txt", "d.tar/e.jpg", f"{'long/' * 15}{'n' * 90}.jpg"]
    if format != tarfile.USTAR_FORMAT:
        names.append("ä" * 120)
    members = [(name, name.encode() * 300 * i) for i, name in enumerate(names)]
    tar = write_tar(tmp_path / "x.tar", members, format)
    for name, content in members:
        path = tar / name
        assert storage.is_file(path)
        assert storage.container(path) == tar
        assert (storage.read(path), storage.size(path)) == (content, len(content))
    assert not storage.is_file(tar / "gone.jpg")
    assert not storage.is_file(tar / "directory")
    assert list(storage.index(tar).members) == [str(Path(name)) for name in names]


def test_links_and_duplicates_are_left_out(tmp_path):
    tar = write_tar(tmp_path / "x.tar", [("a", b"first"), ("b", b""), ("a", b"second")])
    with tarfile.open(tar, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo(f"kind {kind}")
            member.type, member.linkname = kind, "/etc/hostname"
            archive.addfile(member)
    assert list(storage.index(tar).members) == ["a", "b"]
    assert storage.index(tar).duplicates == ("a",)
    assert storage.read(tar / "a") == b"first"


def test_files_in_a_directory_called_like_a_tar_file(tmp_path):
    directory = tmp_path / "directory.tar"
    directory.mkdir()
    (directory / "a.jpg").write_bytes(b"a")
    assert storage.container(directory / "a.jpg") == directory / "a.jpg"
    assert storage.is_file(directory / "a.jpg")
    assert not storage.is_file(directory / "b.jpg")


def test_a_changed_tar_file_is_indexed_again(tmp_path):
    tar = write_tar(tmp_path / "x.tar", [("a", b"old")])
    assert storage.read(tar / "a") == b"old"
    write_tar(tar, [("b", b"more"), ("a", b"newer" * 2000)])
    assert storage.read(tar / "a") == b"newer" * 2000


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda _: b"not a tar file" * 100, "is not a readable tar file"),
        (
            lambda content: content[:1200],
            r"tar file: unexpected end of data; decompress it or copy it",
        ),
        (
            lambda content: content + b"x" * 512,
            r"tar file: invalid header at byte 1536; decompress",
        ),
        (
            lambda content: content + b"x" * 100,
            r"tar file: invalid header at byte 1536; decompress",
        ),
    ],
)
def test_damaged_tar_files_are_refused(tmp_path, damage, message):
    tar = write_tar(tmp_path / "x.tar", [("a", b"a" * 600)])
    tar.write_bytes(damage(tar.read_bytes()[:1536]))  # a header, and two blocks of content
    with pytest.raises(InputError, match=message):
        storage.index(tar)


def test_tar_files_cut_between_two_members_are_refused(tmp_path):
    tar = write_tar(tmp_path / "x.tar", [("a", b"a" * 600), ("b", b"b" * 512), ("c", b"")])
    content = tar.read_bytes()
    for end in (1536, 2560, 3072):
        tar.write_bytes(content[:end])
        with pytest.raises(
            InputError, match=rf"tar file: truncated at byte {end}; decompress it or"
        ):
            storage.index(tar)
    tar.write_bytes(content[: 3072 + 512])  # other programs end with one block
    assert list(storage.index(tar).members) == ["a", "b", "c"]


@pytest.mark.skipif(not shutil.which("tar"), reason="needs tar")
def test_gnu_tar_files_are_indexed(tmp_path):
    (tmp_path / "a.txt").write_text("a dog")
    for blocks in ("1", "20"):
        subprocess.run(["tar", "-b", blocks, "-cf", "x.tar", "a.txt"], cwd=tmp_path, check=True)
        assert list(storage.index(tmp_path / "x.tar").members) == ["a.txt"]


def test_compressed_tar_files_are_refused(tmp_path):
    tar = write_tar(tmp_path / "x.tar", [("a", b"a")], mode="w:gz")
    with pytest.raises(InputError, match="is not a readable tar file"):
        storage.index(tar)


def test_a_member_that_is_cut_short_after_indexing_is_an_error(tmp_path, monkeypatch):
    tar = write_tar(tmp_path / "x.tar", [("a", b"a" * 600)])
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, at: pread(fd, count - 1, at))
    with pytest.raises(InputError, match=r"x.tar/a is truncated; copy its tar file again"):
        storage.read(tar / "a")


def test_images_in_tar_files_load_as_from_disk(tmp_path):
    Image.linear_gradient("L").resize((30, 20)).convert("RGB").save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    members = [("sub/a.jpg", content), ("b.jpg", b""), ("c.jpg", b"none"), ("d.jpg", content[:300])]
    tar = write_tar(tmp_path / "x.tar", members)
    assert load_image(tar / "sub" / "a.jpg").tobytes() == load_image(tmp_path / "a.jpg").tobytes()
    for name, message in [
        ("gone.jpg", "x.tar/gone.jpg': no such file"),
        ("b.jpg", "x.tar/b.jpg': the file is empty"),
        ("c.jpg", "x.tar/c.jpg': not an image in any of the formats"),
        ("d.jpg", "x.tar/d.jpg': "),
    ]:
        with pytest.raises(InputError, match=message):
            load_image(tar / name)


def test_images_that_are_too_large_are_not_read(tmp_path, monkeypatch):
    tar = write_tar(tmp_path / "x.tar", [("a.jpg", b"a" * 600)])
    monkeypatch.setattr("captioner.data.images.MAX_BYTES", 500)
    monkeypatch.setattr(storage, "read", None)
    with pytest.raises(InputError, match=r"x.tar/a.jpg': 600 bytes exceed the limit of 500"):
        load_image(tar / "a.jpg")

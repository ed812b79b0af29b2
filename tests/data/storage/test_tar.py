"""Files read where they lie in tar files, against tarfile's own reading."""

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from captioner.data.images import load_image
from captioner.data.storage import tar as shards
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
        assert shards.is_file(path) and shards.on_disk(path) == tar
        assert (shards.read(path), shards.size(path)) == (content, len(content))
    assert not shards.is_file(tar / "gone.jpg") and not shards.is_file(tar / "directory")
    assert list(shards.index(tar).members) == [str(Path(name)) for name in names]


def test_what_is_no_file_or_comes_twice(tmp_path):
    tar = write_tar(tmp_path / "x.tar", [("a", b"first"), ("b", b""), ("a", b"second")])
    with tarfile.open(tar, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo(f"kind {kind}")
            member.type, member.linkname = kind, "/etc/hostname"
            archive.addfile(member)
    assert list(shards.index(tar).members) == ["a", "b"]
    assert shards.index(tar).twice == ("a",) and shards.read(tar / "a") == b"first"


def test_files_on_disk_are_themselves(tmp_path):
    directory = tmp_path / "directory.tar"  # may be called so
    directory.mkdir()
    (directory / "a.jpg").write_bytes(b"a")
    assert shards.on_disk(directory / "a.jpg") == directory / "a.jpg"
    assert shards.is_file(directory / "a.jpg") and not shards.is_file(directory / "b.jpg")


def test_a_changed_file_is_gone_through_again(tmp_path):
    tar = write_tar(tmp_path / "x.tar", [("a", b"old")])
    assert shards.read(tar / "a") == b"old"
    write_tar(tar, [("b", b"more"), ("a", b"newer" * 2000)])
    assert shards.read(tar / "a") == b"newer" * 2000


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"no tar file at all" * 100, "is no tar file that can be read"),
        (lambda content: content[:1200], r"unexpected end of data\); decompress it, or copy it"),
        (lambda content: content + b"x" * 512, r"\(no header at byte 1536\); decompress"),
        (lambda content: content + b"x" * 100, r"\(no header at byte 1536\); decompress"),
    ],
)
def test_damaged_tar_files(tmp_path, damage, message):
    tar = write_tar(tmp_path / "x.tar", [("a", b"a" * 600)])
    tar.write_bytes(damage(tar.read_bytes()[:1536]))  # a header, and two blocks of content
    with pytest.raises(InputError, match=message):
        shards.index(tar)


def test_tar_files_that_are_cut_between_two_files(tmp_path):
    tar = write_tar(tmp_path / "x.tar", [("a", b"a" * 600), ("b", b"b" * 512), ("c", b"")])
    content = tar.read_bytes()
    for end in (1536, 2560, 3072):
        tar.write_bytes(content[:end])
        with pytest.raises(InputError, match=rf"\(no end at byte {end}\); decompress it, or copy"):
            shards.index(tar)
    tar.write_bytes(content[: 3072 + 512])  # as the shortest that other programs write
    assert list(shards.index(tar).members) == ["a", "b", "c"]


@pytest.mark.skipif(not shutil.which("tar"), reason="needs tar")
def test_tar_files_as_gnu_tar_writes_them(tmp_path):
    (tmp_path / "a.txt").write_text("a dog")
    for blocks in ("1", "20"):
        subprocess.run(["tar", "-b", blocks, "-cf", "x.tar", "a.txt"], cwd=tmp_path, check=True)
        assert list(shards.index(tmp_path / "x.tar").members) == ["a.txt"]


def test_compressed_tar_files_are_refused(tmp_path):
    tar = write_tar(tmp_path / "x.tar", [("a", b"a")], mode="w:gz")
    with pytest.raises(InputError, match="is no tar file that can be read"):
        shards.index(tar)


def test_a_member_cut_short_after_it_was_found(tmp_path, monkeypatch):
    tar = write_tar(tmp_path / "x.tar", [("a", b"a" * 600)])
    found = shards.index(tar)
    monkeypatch.setattr(shards, "index", lambda path: found)
    tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(InputError, match=r"x.tar/a is cut short; copy its tar file again"):
        shards.read(tar / "a")


def test_images_in_tar_files_load_as_they_do_alone(tmp_path):
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


def test_members_that_are_too_large_are_not_read(tmp_path, monkeypatch):
    tar = write_tar(tmp_path / "x.tar", [("a.jpg", b"a" * 600)])
    monkeypatch.setattr("captioner.data.images.MAX_BYTES", 500)
    monkeypatch.setattr(shards, "read", None)
    with pytest.raises(InputError, match=r"x.tar/a.jpg': 600 bytes, at most 500 are read"):
        load_image(tar / "a.jpg")

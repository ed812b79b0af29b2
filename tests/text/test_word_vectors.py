"""Files of word vectors against those that gensim writes, and damaged ones."""

import gzip

import numpy as np
import pytest
from gensim.models import KeyedVectors

from captioner.errors import InputError
from captioner.text.word_vectors import CHUNK, is_vector_file, read_vectors

WORDS = ["dog", "the", "Zebra", "café", "ball"]
WANTED = {"dog", "café", "ball", "absent"}


@pytest.fixture
def keyed():
    vectors = KeyedVectors(7)
    rows = np.random.default_rng(0).normal(size=(len(WORDS), 7)).astype(np.float32)
    vectors.add_vectors(WORDS, rows)
    return vectors


def check(found, keyed):
    assert set(found) == WANTED - {"absent"}
    for word, vector in found.items():
        np.testing.assert_array_equal(vector, keyed[word])
        assert (vector.dtype, vector.shape) == (np.float32, (7,))


@pytest.mark.parametrize("name", ["v.txt", "v.vec", "v.bin", "v.txt.gz", "v.vec.gz", "v.bin.gz"])
def test_what_gensim_writes_is_read(tmp_path, keyed, name):
    path = tmp_path / name
    keyed.save_word2vec_format(str(path), binary=".bin" in name)  # compresses by itself
    assert is_vector_file(path)
    check(read_vectors(path, WANTED), keyed)


def test_binary_vectors_may_end_with_line_breaks(tmp_path, keyed):
    """As those of word2vec itself; a value may contain the bytes of a space and a line break."""
    keyed.vectors[keyed.key_to_index["the"]] = np.frombuffer(b" \n \n" * 7, "<f4")
    rows = [word.encode() + b" " + keyed[word].tobytes() + b"\n" for word in WORDS]
    path = tmp_path / "v.bin"
    path.write_bytes(b"5 7\n" + b"".join(rows))
    check(read_vectors(path, WANTED), keyed)


def test_binary_vectors_over_several_chunks(tmp_path):
    rows = np.random.default_rng(0).normal(size=(2000, 300)).astype("<f4")
    assert rows.nbytes > 2 * CHUNK
    lines = [f"w{i} ".encode() + row.tobytes() for i, row in enumerate(rows)]
    path = tmp_path / "v.bin"
    path.write_bytes(b"2000 300\n" + b"".join(lines))
    found = read_vectors(path, {f"w{i}" for i in range(2000)})
    np.testing.assert_array_equal(np.stack(list(found.values())), rows)


NAN = np.float32("nan").tobytes()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.bin", b"dog 1 2 3\n", "is not a word2vec binary file: its header is not two numbers; "),
        ("v.bin", b"", "its header is not two numbers; "),
        ("v.bin", b"1 0\n", "its header specifies 0 numbers per vector, not 1 to 65,536; "),
        ("v.bin", b"1 99999999999\n", "specifies 99,999,999,999 numbers per vector, not 1 to "),
        (
            "v.bin",
            b"2 1\ndog " + bytes(4),
            "is incomplete or damaged: vector 2 of 2 is missing; copy or download",
        ),
        (
            "v.bin",
            b"1 2\ndog " + bytes(7),
            "is incomplete or damaged: vector 1 of 1 is missing; copy or download",
        ),
        (
            "v.bin",
            b"1 1\n" + b"x" * 3 * CHUNK,
            "is incomplete or damaged: vector 1 of 1 is missing; copy or download",
        ),
        ("v.bin", b"1 1\ndog " + NAN, "the vector of 'dog' is not finite; copy or download"),
        ("v.txt.gz", b"dog 1 2\n", r"^word vectors .*v\.txt\.gz cannot be read: Not a gzipped"),
        (
            "v.txt.gz",
            gzip.compress(b"dog 1 2\n", mtime=0)[:-9],
            "cannot be read: Compressed file ended",
        ),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_vectors(path, WANTED)


@pytest.mark.parametrize("name", ["vectors", "v.npy", "v.gz", "v.tar.gz"])
def test_other_names_are_not_those_of_vector_files(tmp_path, name):
    assert not is_vector_file(tmp_path / name)

"""Rows given by the user: what they return, and which files are refused."""

import numpy as np
import pytest

from captioner.errors import InputError
from captioner.text.given_rows import BLOCK, read_rows


def write(path, rows):
    np.save(path, rows)
    return path


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_are_taken_by_position_and_scaled_to_unit_length(tmp_path, dtype, order):
    rows = np.array([[3, 4], [0, 0], [0, -2]], dtype=dtype, order=order)
    given = read_rows(write(tmp_path / "v.npy", rows), 3, "f")
    found = given.take([2, 0, 1])
    np.testing.assert_allclose(found, [[0, -1], [0.6, 0.8], [0, 0]], rtol=1e-6)
    assert (found.dtype, given.dimensions) == (np.float32, 2)
    assert isinstance(given.rows, np.memmap)


def test_large_values_do_not_overflow(tmp_path):
    given = read_rows(write(tmp_path / "v.npy", np.full((1, 4), 1e38)), 1, "f")
    np.testing.assert_allclose(given.take([0]), 0.5)


def test_new_text_cannot_be_encoded(tmp_path):
    given = read_rows(write(tmp_path / "v.npy", np.ones((1, 4))), 1, "f")
    with pytest.raises(InputError, match=r"^new text cannot be encoded: .*v\.npy contains only"):
        given.encode(["a dog"])
    assert given.unknown_words("A dog") == ["a", "dog"]


def late_nan():
    rows = np.zeros((BLOCK + 3, 2))
    rows[BLOCK + 1, 1] = np.nan
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.ones((3, 2)), "have 3 rows, but there are 2 captions; write one row per caption"),
        (np.ones(2), r"must be a matrix of float16, float32 or float64, got float64 \(2,\)$"),
        (np.ones((2, 2), int), r"got int64 \(2, 2\)$"),
        (np.ones((2, 0)), r"must have at least one column, got shape \(2, 0\)$"),
        (
            np.array([[1, 2], [np.inf, 0]]),
            "finite as float32, but row 1 .* is not; recompute them$",
        ),
        (
            np.array([[1, 2], [0, -1e200]]),
            "finite as float32, but row 1 .* is not; recompute them$",
        ),
        (late_nan(), f"but row {BLOCK + 1} .* is not; recompute them$"),
        (np.array([["a", None]], object), "contains Python objects; write it with numpy.save$"),
    ],
)
def test_unsuitable_rows_are_refused(tmp_path, rows, message):
    captions = len(rows) if len(rows) > 3 else 2
    with pytest.raises(InputError, match=rf"^sentence vectors .*v\.npy:? .*{message}"):
        read_rows(write(tmp_path / "v.npy", rows), captions, "f")


def test_files_that_are_not_arrays_are_refused(tmp_path):
    path = tmp_path / "v.npy"
    with pytest.raises(
        InputError, match=r"v\.npy cannot be read: No such file or directory; check the path$"
    ):
        read_rows(path, 1, "f")
    for content in (b"", b"dog 1 2", b"\x93NUMPY\x01\x00\x05\x00{1:2}"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read: it is damaged or contains Python"):
            read_rows(path, 1, "f")
    with path.open("wb") as file:
        np.savez(file, rows=np.ones((1, 2)))
    with pytest.raises(InputError, match=r"v\.npy .* got an archive$"):
        read_rows(path, 1, "f")

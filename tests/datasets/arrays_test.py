"""Data from .npy and .npz files, whole, damaged and of other forms."""

import zipfile

import numpy as np
import pytest

from dqa_keras import datasets
from dqa_keras.datasets import arrays


def test_npz_with_and_without_parts(tmp_path):
    x, y = np.zeros((5, 2, 2, 1)), np.arange(5)
    np.savez(tmp_path / "one.npz", x=x, y=y)
    np.savez(tmp_path / "two.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    one, two = (datasets.load(tmp_path / f"{name}.npz") for name in ("one", "two"))
    assert int(one.train.cardinality()) == int(one.test.cardinality()) == 5
    assert int(two.test.cardinality()) == 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros(3)}, r"must hold x and y.*\['images'\]"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(2)}, "same length.*3 and 2"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0)}, "at least 1"),
        ({"x": np.zeros((3, 2)), "y": np.eye(3)}, r"Received: shape=\(3, 3\)"),
        ({"x": np.array(["a"]), "y": np.zeros(1)}, "must hold numbers"),
        ({"x": np.zeros((1, 2)), "y": np.array(["a"])}, "must hold numbers"),
        ({"x": np.zeros((1, 2)), "y": np.zeros(1, complex)}, "must hold numbers"),
        ({"x": np.zeros((2, 2)), "y": np.array([0, 1.5])}, r"0, 1, 2.*: 1\.5"),
        ({"x": np.zeros((2, 2)), "y": np.array([0, np.nan])}, "0, 1, 2.*: nan"),
        ({"x": np.zeros((2, 2)), "y": np.array([0, -1])}, "0, 1, 2.*: -1"),
        ({"x": np.zeros((1, 2)), "y": np.uint64([2**63])}, f"0, 1, 2.*: {2**63}"),
        ({"x": np.array(1.0), "y": np.zeros(1)}, "a single number and 1"),
        ({"x": np.array(1.0), "y": np.array(1)}, "at least 1"),
        ({"x": np.zeros((3, 0)), "y": np.zeros(3)}, "at least 1"),
        ({"x": np.float32([[1], [np.nan]]), "y": np.zeros(2)}, "nan in input 1"),
        ({"x": np.float64([[1], [1e300]]), "y": np.zeros(2)}, r"1e\+300 in input 1"),
    ],
)
def test_npz_of_another_form_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        datasets.load(tmp_path / "bad.npz")


def test_a_file_that_only_is_called_npz_is_refused(tmp_path):
    (tmp_path / "empty.npz").touch()
    with pytest.raises(ValueError, match=r"not an \.npz, as numpy\.savez writes it"):
        datasets.load(tmp_path / "empty.npz")


def test_pickles_are_not_loaded(tmp_path):
    np.savez(tmp_path / "p.npz", x=np.array([{}], dtype=object), y=np.zeros(1))
    with pytest.raises(ValueError, match=r"not an \.npz of plain arrays"):
        datasets.load(tmp_path / "p.npz")


def npy(shape, data=b"", kind="<f8"):
    """The bytes of an .npy whose header says what its data need not hold."""
    header = str({"descr": kind, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.npy", npy((10, 8), b"short")),
        ("x.npy", npy((2**40, 2**40), b"short")),
        ("x.npy", npy((2**31,), b"short")),
        ("x.npy", npy((-1,), b"")),
        ("x.npy", npy((1,), b"1234567", kind="|O")),
        ("x.npy", npy((1,), kind="nonsense")),
        ("x.npy", b"\x93NUMPY\x01\x00\x05\x00{{{{{"),
        ("x.npy", b"\x93NUMPY"),
        ("x.npy", b""),
        ("x.npy", b"no array"),
        ("x", b"no array"),
        ("../x.npy", npy((1,), bytes(8))[:-1]),
    ],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_that_is_no_whole_array_is_refused(tmp_path, name, data, method):
    path = tmp_path / "bad.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, data)
        archive.writestr("y.npy", npy((1,), bytes(8)))
    with pytest.raises(ValueError, match=f"{path} (is not an|must hold)"):
        datasets.load(path)


@pytest.mark.parametrize("place", range(30, 400, 23))
def test_a_damaged_archive_is_refused_or_read_whole(tmp_path, place):
    path = tmp_path / "damaged.npz"
    np.savez_compressed(path, x=np.arange(40.0), y=np.arange(40))
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 0xFF
    path.write_bytes(data)
    try:
        loaded = [float(x) for x, _ in datasets.load(path).train]
    except ValueError as error:
        loaded = str(error)
    assert loaded == [*range(40)] or str(path) in loaded


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 4)), "at least one input"),
        (np.zeros(()), "at least one input"),
        (np.array(["a"]), "must hold numbers"),
        (np.float32([[0], [np.inf]]), "inf in input 1"),
    ],
)
def test_inputs_that_cannot_be_used_are_refused(tmp_path, array, message):
    path = tmp_path / "x.npy"
    np.save(path, array)
    with pytest.raises(ValueError, match=f"{path}.*{message}"):
        arrays.load_inputs(path)


@pytest.mark.parametrize("data", [b"", b"nothing", npy((9, 9), b"short"), b"PK\3\4"])
def test_a_file_that_only_is_called_npy_is_refused(tmp_path, data):
    path = tmp_path / "x.npy"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{path} is not an .npy"):
        arrays.load_inputs(path)


def test_an_npz_is_no_npy(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    with pytest.raises(ValueError, match="not an"):
        arrays.load_inputs(tmp_path / "x.npy")

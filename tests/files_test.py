import os
import stat

import pytest

from dqa_keras import files


def test_the_file_appears_when_the_block_succeeds(tmp_path):
    path = tmp_path / "a.bin"
    with files.replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail_half_way():
        with files.replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_the_file_has_ordinary_permissions(tmp_path):
    with files.replacing(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"")
    ordinary = tmp_path / "b.bin"
    ordinary.write_bytes(b"")
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "a.bin", ordinary)]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("name", ["missing/a.bin", "."])
def test_a_path_that_cannot_be_written_is_named(tmp_path, name):
    path = tmp_path / name
    with (
        pytest.raises(ValueError, match="cannot write") as error,
        files.replacing(path),
    ):
        raise AssertionError("the block must not run")
    assert str(path) in str(error.value)
    assert os.listdir(tmp_path) == []

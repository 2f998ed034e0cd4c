import os
import socket
import stat
import subprocess
import sys

import pytest

from dqa_keras import files


def test_the_file_appears_when_the_block_succeeds(tmp_path):
    path = tmp_path / "a.bin"
    with files.replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.bin"]


def fail_half_way(path):
    with files.replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyError


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    with pytest.raises(KeyError):
        fail_half_way(path)
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


def write(path, content):
    with files.replacing(path) as temporary:
        temporary.write_bytes(content)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o444])
def test_a_file_that_is_there_keeps_its_permissions(tmp_path, mode):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    path.chmod(mode)
    write(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("content", [None, b"old"])
def test_a_link_is_followed_and_stays(tmp_path, content):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    target, link, chain = folder / "a.bin", tmp_path / "link", tmp_path / "chain"
    link.symlink_to(target)
    chain.symlink_to(link)
    if content is not None:
        target.write_bytes(content)
    write(chain, b"new")
    assert chain.is_symlink()
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert os.listdir(folder) == ["a.bin"]


def test_a_link_to_a_folder_that_is_gone_is_named(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "gone" / "a.bin")
    with pytest.raises(ValueError, match=f"cannot write {link}"):
        write(link, b"new")
    assert os.listdir(tmp_path) == ["link"]


def test_a_link_that_leads_to_itself_stays(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(link)
    with pytest.raises(ValueError, match="leads to itself"):
        write(link, b"new")
    assert link.is_symlink()


def test_a_path_through_a_folder_that_is_missing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot write"):
        write(tmp_path / "gone" / ".." / "a.bin", b"new")
    assert os.listdir(tmp_path) == []


def test_a_fifo_gets_the_content_and_stays(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write(path, b"new")
    assert os.read(reader, 99) == b"new"
    os.close(reader)
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert os.listdir(tmp_path) == ["fifo"]


def test_an_error_writes_nothing_into_a_fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    with pytest.raises(KeyError):
        fail_half_way(path)
    assert os.read(reader, 99) == b""
    os.close(reader)


def test_devices_stay_devices():
    write("/dev/null", b"new")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(OSError, match="cannot write /dev/full: No space left"):
        write("/dev/full", b"new")


def test_a_socket_is_refused(tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        with pytest.raises(ValueError, match="it is a socket"):
            write(path, b"new")
    assert stat.S_ISSOCK(path.stat().st_mode)


_TO_STDOUT = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("files", sys.argv[1])
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
print("before")
with files.replacing("/dev/stdout") as temporary:
    temporary.write_text("content\\n")
print("after")
"""


def test_standard_output_takes_the_content_in_its_place(tmp_path):
    command = [sys.executable, "-c", _TO_STDOUT, files.__file__]
    piped = subprocess.run(command, capture_output=True, text=True, check=True)
    with (tmp_path / "out").open("w") as out:
        subprocess.run(command, stdout=out, check=True)
    for text in (piped.stdout, (tmp_path / "out").read_text()):
        assert text == "before\ncontent\nafter\n"


def test_a_name_that_is_too_long_is_refused(tmp_path):
    path = tmp_path / ("x" * 300)
    with pytest.raises(ValueError, match="File name too long"), files.replacing(path):
        pass

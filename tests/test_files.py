"""Atomic writing: the old content or the new, never a part, and no litter."""

import errno
import os
import signal
import stat
import threading

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from vicinal.files import write_atomically, write_text_atomically

resource = pytest.importorskip("resource", reason="limits on the size of files are a POSIX feature")


@pytest.fixture
def small_files():
    """Let the operating system refuse any file above 64 KiB, as a full disk would."""
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    yield 64 << 10
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, previous)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20)
@given(first=st.binary(max_size=300), second=st.binary(max_size=300))
def test_the_last_content_written_is_read_back(tmp_path, first, second):
    path = tmp_path / "file"
    assert write_atomically(path, first) == path
    assert path.read_bytes() == first
    write_atomically(str(path), memoryview(second))
    assert path.read_bytes() == second
    assert os.listdir(tmp_path) == ["file"]


def test_text_is_utf8_and_keeps_its_line_ends(tmp_path):
    write_text_atomically(tmp_path / "text", "Δ\r\n\n")
    assert (tmp_path / "text").read_bytes() == b"\xce\x94\r\n\n"


def test_a_refused_write_keeps_the_old_file(tmp_path, small_files):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(OSError, match="large") as caught:
        write_atomically(path, bytes(small_files + 1))
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_at_any_stage_keeps_the_old_file(tmp_path, monkeypatch, failing, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*arguments):
        raise error

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(type(error)):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_folder_is_flushed_after_the_rename(tmp_path, monkeypatch):
    done, flush, rename = [], os.fsync, os.replace

    def note_flush(descriptor):
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        done.append((kind, os.fstat(descriptor).st_ino))
        flush(descriptor)

    def note_rename(*names):
        done.append(("rename", 0))
        rename(*names)

    monkeypatch.setattr(os, "fsync", note_flush)
    monkeypatch.setattr(os, "replace", note_rename)
    path = write_atomically(tmp_path / "file", b"content")
    assert done == [("file", path.stat().st_ino), ("rename", 0), ("folder", tmp_path.stat().st_ino)]


def test_a_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "file", b"")


def test_a_new_file_has_usual_permissions_and_an_old_one_keeps_its_own(tmp_path):
    (tmp_path / "plain").touch()
    write_atomically(tmp_path / "new", b"")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    (tmp_path / "new").chmod(0o640)
    write_atomically(tmp_path / "new", b"content")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_a_symbolic_link_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_atomically(tmp_path / "link", b"content")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_reader_never_sees_a_part(tmp_path):
    path = tmp_path / "file"
    contents = [bytes([letter]) * 200_000 for letter in b"ab"]
    write_atomically(path, contents[0])
    done = threading.Event()

    def write():
        for turn in range(20):
            write_atomically(path, contents[turn % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(path.read_bytes())
    writer.join()
    assert seen <= set(contents)


def test_a_link_in_a_circle_and_a_removed_working_folder(tmp_path, monkeypatch):
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="Too many levels of symbolic links") as caught:
        write_atomically(tmp_path / "circle", b"new")
    assert caught.value.filename == str(tmp_path / "circle")
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    (tmp_path / "away").rmdir()
    with pytest.raises(FileNotFoundError, match="the working folder was removed; go to another one: 'file'"):
        write_atomically("file", b"new")

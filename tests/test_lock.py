"""The lock of a folder: one holder at a time, whoever it is, and no trace of it afterwards."""

import os
import signal
import threading
import warnings
from pathlib import Path

import pytest
from lock_holders import held_elsewhere

from vicinal._lock import LOCK, locked

REFUSED = (
    r"expected a folder that no other run writes to, got '.*', where one is running; wait for it to end, or choose"
)


def in_thread(function):
    """What a function returns or raises in another thread."""
    found = []

    def call():
        try:
            found.append(function())
        except ValueError as error:
            found.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return found[0]


def entered(folder):
    with locked(folder):
        return "entered"


def test_a_second_process_is_refused_and_leaves_no_trace(tmp_path):
    with held_elsewhere(tmp_path):
        before = sorted(tmp_path.iterdir())
        with pytest.raises(ValueError, match=REFUSED):
            entered(tmp_path)
        assert sorted(tmp_path.iterdir()) == before == [tmp_path / LOCK]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_dies_with_its_process(tmp_path, how):
    with held_elsewhere(tmp_path) as process:
        process.send_signal(how)
        process.wait()
        assert entered(tmp_path) == "entered"


def test_a_second_thread_is_refused(tmp_path):
    with locked(tmp_path):
        assert "where one is running" in str(in_thread(lambda: entered(tmp_path)))
    assert in_thread(lambda: entered(tmp_path)) == "entered"


def test_a_thread_enters_again_and_holds_until_the_outer_block_ends(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    monkeypatch.chdir(tmp_path)
    with locked(tmp_path / "run"):
        for same in ("run", "run/../run", "link"):
            assert entered(same) == "entered"
        assert "where one is running" in str(in_thread(lambda: entered("link")))
    assert in_thread(lambda: entered("link")) == "entered"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:os.fork:RuntimeWarning")
def test_a_forked_child_does_not_hold_what_its_parent_holds(tmp_path):
    """It may not write either, and it does not keep the lock when its parent has let it go."""
    with locked(tmp_path / "run"):
        ask, said = os.pipe()
        stay, go = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                entered(tmp_path / "run")
                os.write(said, b"entered")
            except ValueError:
                os.write(said, b"refused")
            os.read(stay, 1)
            os._exit(0)
        assert os.read(ask, 7) == b"refused"
        (tmp_path / "run" / "file").touch()
    assert entered(tmp_path / "run") == "entered"  # the child is still alive
    os.write(go, b"!")
    os.waitpid(child, 0)


def test_what_was_made_for_nothing_is_removed(tmp_path):
    with locked(tmp_path / "runs" / "one"):
        assert (tmp_path / "runs" / "one" / LOCK).exists()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    entered(tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []
    with locked(tmp_path / "other" / "one"):
        (tmp_path / "other" / "file").touch()
    assert list((tmp_path / "other").iterdir()) == [tmp_path / "other" / "file"]


def test_a_new_folder_is_new(tmp_path):
    with locked(tmp_path / "runs" / "new", new=True):
        (tmp_path / "runs" / "new" / "file").touch()
    with pytest.raises(FileExistsError), locked(tmp_path / "runs" / "new", new=True):
        pass
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "runs", tmp_path / "runs/new", tmp_path / "runs/new/file"]


def test_leftovers_of_killed_writes_are_removed_and_nothing_else(tmp_path):
    ours = ".0123456789abcdef.tmp"
    files = [".0123456789ABCDEF.tmp", "0123456789abcdef.tmp", ".0123456789abcdef.tmp.npz", "a.tmp"]
    for name in (ours, *files):
        (tmp_path / name).write_bytes(b"part")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ours).touch()  # maybe of a run that has that folder
    (tmp_path / ".fedcba9876543210.tmp").mkdir()
    (tmp_path / ".aaaaaaaaaaaaaaaa.tmp").symlink_to("a.tmp")
    with held_elsewhere(tmp_path / "folder"):
        assert not (tmp_path / "folder" / ours).exists()
        with locked(tmp_path):
            (tmp_path / "folder" / ours).touch()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {*files, "folder", ".fedcba9876543210.tmp", ".aaaaaaaaaaaaaaaa.tmp"}
    assert (tmp_path / "folder" / ours).exists()


@pytest.mark.parametrize("what", ["removed", "replaced"])
def test_a_lost_folder_is_noticed_and_another_one_left_alone(tmp_path, what):
    folder = tmp_path / "run"
    with locked(folder) as held:
        held.check()
        folder.rename(tmp_path / "away")
        if what == "replaced":
            folder.mkdir()
            (folder / LOCK).touch()
        with pytest.raises(
            FileNotFoundError, match="the folder of the run was removed or replaced while it ran"
        ) as error:
            held.check()
        assert error.value.filename == str(folder)
    assert folder.exists() == (folder / LOCK).exists() == (what == "replaced")


def test_a_removed_lock_is_taken_again(tmp_path):
    with locked(tmp_path) as held:
        (tmp_path / LOCK).unlink()
        held.check()
        assert "where one is running" in str(in_thread(lambda: entered(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_began_when_the_lock_was_removed_is_left_alone(tmp_path):
    with locked(tmp_path) as held:
        (tmp_path / LOCK).unlink()
        with held_elsewhere(tmp_path):
            with pytest.raises(OSError, match=r"another run has begun in the folder, since its \.lock was removed"):
                held.check()
            assert (tmp_path / LOCK).exists()


def failing(error):
    def acquire(self, *arguments, **options):
        raise error

    return acquire


@pytest.mark.parametrize("error", [OSError(38, "Function not implemented"), OSError(37, "No locks available")])
def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, error):
    import filelock

    monkeypatch.setattr(filelock.FileLock, "acquire", failing(error))
    with pytest.warns(UserWarning, match=r"the file system of '.*' has no locks: start no second run in this folder"):
        assert entered(tmp_path) == "entered"


def test_threads_exclude_each_other_without_locks_too(tmp_path, monkeypatch):
    import filelock

    monkeypatch.setattr(filelock.FileLock, "acquire", failing(OSError(38, "Function not implemented")))
    with pytest.warns(UserWarning, match="has no locks"), locked(tmp_path):
        assert "where one is running" in str(in_thread(lambda: entered(tmp_path)))


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    import filelock

    monkeypatch.setattr(filelock.FileLock, "acquire", failing(PermissionError(13, "Permission denied")))
    with pytest.raises(
        PermissionError, match=r"could not lock the folder \(Permission denied\); choose a folder"
    ) as error:
        entered(tmp_path / "run")
    assert error.value.filename == str(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_links_in_a_circle_and_a_removed_working_folder(tmp_path, monkeypatch):
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="Too many levels of symbolic links") as error:
        entered(tmp_path / "circle")
    assert error.value.filename == str(tmp_path / "circle")
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    (tmp_path / "away").rmdir()
    with pytest.raises(FileNotFoundError, match="the working folder was removed; go to another one: 'run'"):
        entered("run")


def test_none_locks_nothing():
    with warnings.catch_warnings(), locked(None) as held, locked(None):
        warnings.simplefilter("error")
        assert not held.lost
        assert not Path(LOCK).exists()

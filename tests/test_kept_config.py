"""A refused run leaves a folder as it found it: with what was in it, and without the settings of the run."""

import pytest

from vicinal.settings import CONFIG, kept_config


def refused(folder, write=lambda: None):
    def run():
        with kept_config(folder, {"seed": 0}):
            write()
            raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        run()
    return sorted(path.name for path in folder.iterdir())


def test_empty_files_and_folders_of_the_user_stay(tmp_path):
    """As the file that a shell has made for the messages of the run."""
    (tmp_path / "err.txt").touch()
    (tmp_path / "figures").mkdir()

    def write():
        (tmp_path / "metrics.jsonl").touch()
        (tmp_path / "bp-seed0").mkdir()
        (tmp_path / "bp-seed0" / "metrics.jsonl").touch()

    assert refused(tmp_path, write) == ["err.txt", "figures"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "bp-seed0/checkpoint.npz"])
def test_the_settings_are_not_added_to_another_run(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("another run")
    assert refused(tmp_path) == [name.split("/")[0]]


def test_what_cannot_be_looked_into_stays(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    assert refused(tmp_path) == ["link"]


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty before"])
@pytest.mark.parametrize("name", ["metrics.jsonl", "bp-seed0/metrics.jsonl"])
def test_the_settings_of_a_run_that_has_begun_stay(tmp_path, name, there):
    log = tmp_path / name
    log.parent.mkdir(exist_ok=True)
    if there:
        log.touch()
    assert refused(tmp_path, lambda: log.write_text("a record")) == sorted([CONFIG, name.split("/")[0]])

"""Damaged, foreign and mismatching checkpoints are refused, and a crash keeps the old one."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_checks import assert_identical, relaxed
from hypothesis import given, strategies as st

from vicinal.train import checkpoint
from vicinal.train.checkpoint import CheckpointError, load, read_metadata, save


@pytest.fixture
def small(tmp_path):
    tree = {"weight": jnp.arange(6.0).reshape(2, 3), "key": jax.random.key(1), "step": 3}
    path = tmp_path / "small.npz"
    save(path, tree, metadata={"loss": 0.1})
    return path, tree, path.read_bytes()


def assert_damage_noticed(path, tree, content):
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        load(path, tree)


def test_a_changed_byte_is_noticed_wherever_it_is(small):
    path, tree, content = small
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        assert_damage_noticed(path, tree, bytes(damaged))


@relaxed
@given(data=st.data())
def test_a_changed_bit_is_noticed(small, data):
    path, tree, content = small
    damaged = bytearray(content)
    damaged[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert_damage_noticed(path, tree, bytes(damaged))
    with pytest.raises(CheckpointError):
        read_metadata(path)


def test_truncation_at_any_length_is_noticed(small):
    path, tree, content = small
    for length in range(len(content)):
        assert_damage_noticed(path, tree, content[:length])
    assert_damage_noticed(path, tree, content + b"\0")


def test_messages_distinguish_damage_from_other_files(small, tmp_path):
    path, tree, content = small
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"Expected SHA-256 .*got .*cut short or altered; restore it"):
        load(path, tree)
    np.savez(tmp_path / "other.npz", weight=np.ones(3))
    (tmp_path / "note.txt").write_text("not a checkpoint")
    (tmp_path / "empty").touch()
    for other in ("other.npz", "note.txt", "empty"):
        with pytest.raises(CheckpointError, match="got some other file"):
            load(tmp_path / other, tree)


def test_a_digest_of_other_bytes_is_shown_in_one_line(small):
    path, tree, content = small
    path.write_bytes(content[:-64] + b"\n\r\x1b[2J" * 11)
    with pytest.raises(CheckpointError, match=r"cut short or altered") as caught:
        load(path, tree)
    assert str(caught.value).isprintable()


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(CheckpointError, match=r"Expected a checkpoint at .*No such file.*check the path"):
        load(tmp_path / "absent.npz", {})
    with pytest.raises(CheckpointError, match="Expected a checkpoint at"):
        read_metadata(tmp_path)


def test_a_newer_format_is_refused(small, monkeypatch):
    path, tree, _ = small
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT_VERSION", 2)
        save(path, tree)
    for reader in (lambda: load(path, tree), lambda: read_metadata(path)):
        with pytest.raises(CheckpointError, match=r"format 1 or older, got format 2 .*upgrade vicinal"):
            reader()


F32 = jnp.float32


@pytest.mark.parametrize(
    ("saved", "template", "message"),
    [
        (
            {"w": jnp.ones((2, 3))},
            {"w": jnp.ones((3, 2))},
            r"Expected float32\[3,2\] .*'w'.*got float32\[2,3\]",
        ),
        ({"w": jnp.ones(2)}, {"w": jnp.ones(2, jnp.bfloat16)}, r"Expected bfloat16\[2\] .*got float32\[2\]"),
        ([1, jnp.ones(2)], [1, 2.0], r"Expected a Python float at leaf '\[1\]', got float32\[2\]"),
        ([1, 2], [1, 2.0], r"Expected a Python float at leaf '\[1\]', got a Python int"),
        ([True], [1], r"Expected a Python int at leaf '\[0\]', got a Python bool"),
        ([None], [jnp.ones(1)], r"Expected float32\[1\] at leaf '\[0\]', got None"),
        ([jnp.ones(1)], [None], r"Expected None at leaf '\[0\]', got float32\[1\]"),
        ([jnp.ones(1)], [jax.nn.relu], r"Expected a static leaf at leaf '\[0\]', got float32\[1\]"),
        ([jax.nn.relu], [jnp.ones(1)], r"Expected float32\[1\] at leaf '\[0\]', got a static leaf"),
        ({"a": 1}, {"a": 1, "b": 2}, r"Expected a Python int at leaf \"\['b'\]\", got no such leaf"),
        ({"a": 1, "b": 2}, {"b": 2}, r"Expected no such leaf at leaf \"\['a'\]\", got a Python int"),
        ({"a": 1, "b": 2}, {"a": 1}, r"Expected no such leaf at leaf \"\['b'\]\", got a Python int"),
        ([1, 2], [1], r"Expected no such leaf at leaf '\[1\]'"),
        ([1], [1, 2], r"leaf '\[1\]', got no such leaf"),
        ([], [1], r"leaf '\[0\]', got no such leaf"),
        ({"a": [1, 2, 3]}, {"a": [1, 2.0, 3, 4]}, r"a Python float at leaf \"\['a'\]\[1\]\""),
    ],
)
def test_mismatches_name_the_first_differing_leaf(tmp_path, saved, template, message):
    save(tmp_path / "saved.npz", saved)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "saved.npz", template)


@pytest.mark.parametrize(
    "leaf",
    [np.array(["a"]), np.array([None]), np.array(["2020-01-01"], "M8[D]"), jax.ShapeDtypeStruct((2,), F32)],
)
def test_leaves_that_cannot_be_stored_are_refused(tmp_path, leaf):
    with pytest.raises(CheckpointError, match=r"leaf \"\['x'\]\", got dtype .*; convert it"):
        save(tmp_path / "state.npz", {"x": leaf})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("metadata", [{"loss": np.float32(1)}, {"a": {1, 2}}, {"model": jnp.ones(2)}])
def test_metadata_must_be_json(tmp_path, metadata):
    with pytest.raises(CheckpointError, match="Expected metadata made of JSON values"):
        save(tmp_path / "state.npz", [], metadata=metadata)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stopped_at", ["replace", "fsync"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_crash_while_writing_keeps_the_old_checkpoint(small, monkeypatch, stopped_at, error):
    path, tree, content = small

    def stop(*arguments, **options):
        raise error("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(os, stopped_at, stop)
        with pytest.raises(error, match="stopped"):
            save(path, jax.tree.map(lambda leaf: leaf, {**tree, "step": 4}))
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]
    assert_identical(load(path, tree)[0], tree)

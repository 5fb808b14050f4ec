"""What is read from files: valid ones, how they are edited, and what a reader may do with what comes of it."""

import dataclasses
import gzip
import inspect
import io
import json
import random
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import fuzz_edits as edits
import jax
import jax.numpy as jnp
import numpy as np
import optax
import typeguard

import vicinal as vc
from vicinal._lock import locked
from vicinal.compare import TrainSettings
from vicinal.data import load
from vicinal.interchange import load_safetensors, save_safetensors
from vicinal.keys import is_key
from vicinal.report import Section, Study, Table
from vicinal.reproduce import settings_in
from vicinal.settings import read_config
from vicinal.sweeping import SweepSettings
from vicinal.train import checkpoint
from vicinal.train.files import Files
from vicinal.train.options import Options
from vicinal.train.stored import metadata_of


class Subject(NamedTuple):
    """A kind of file.

    Attributes:
        content: A valid file.
        edit: How it is changed.
        read: Reads it from a path. Returns whether it is what it was; raises AssertionError if it is no such thing.
        name: The file's name.
    """

    content: bytes
    edit: edits.Edit
    read: Callable[[Path], bool]
    name: str


TREE = {
    "half": jnp.ones(3, jnp.bfloat16),
    "key": jax.random.key(1),
    "live": jnp.array([True, False]),
    "n": np.arange(3),
}
TREE |= {"none": None, "step": 3, "rate": 0.5, "w": jnp.arange(6.0).reshape(2, 3), "f": jnp.tanh}


def _forms(tree: Any) -> list[Any]:
    leaves = jax.tree.leaves(tree, is_leaf=lambda leaf: leaf is None)
    return [(type(leaf), getattr(leaf, "shape", None), getattr(leaf, "dtype", None)) for leaf in leaves]


def _bits(tree: Any) -> list[bytes]:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if not callable(leaf)]
    keyless = [jax.random.key_data(x) if isinstance(x, jax.Array) and is_key(x) else x for x in leaves]
    return [np.asarray(leaf).tobytes() for leaf in keyless]


def _tree(path: Path) -> bool:
    found, metadata = checkpoint.load(path, TREE)
    assert _forms(found) == _forms(TREE)
    assert isinstance(metadata, dict)
    return _bits(found) == _bits(TREE) and metadata == {"loss": 0.5}


def _same_tree(path: Path) -> bool:
    assert _tree(path), "a file whose digest is not right was read"
    return True


def _settings(kind: type) -> Callable[[Path], bool]:
    def read(path: Path) -> bool:
        found = read_config(path.parent, kind)
        _check_types(found)
        assert found.epochs >= 1
        assert found.batch_size >= 1
        return found == kind()

    return read


def _check_types(settings: Any) -> None:
    """By another library than the reader."""
    for name, hint in typing.get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        typeguard.check_type(value, hint, collection_check_strategy=typeguard.CollectionCheckStrategy.ALL_ITEMS)
        assert not isinstance(value, bool) or hint is bool or bool in typing.get_args(hint)
        assert not isinstance(value, float) or np.isfinite(value)
        if dataclasses.is_dataclass(value):
            _check_types(value)


def _arguments(path: Path) -> bool:
    found = settings_in(path.parent)
    assert [*map(type, found.values())] in ([str, bool, type(seeds), bool] for seeds in (None, 3))
    return found == {"name": "il-theory/online", "quick": True, "seeds": 2, "large": False}


def _data(find: Callable[[Path], Any] = lambda path: path) -> Callable[[Path], bool]:
    """A reader that compares a data set with the one that it reads first."""
    first: list[bytes] = []

    def read(path: Path) -> bool:
        found = load(find(path))
        assert found.x_train.dtype == found.x_test.dtype == np.float32
        assert np.isfinite(found.x_train).all()
        assert (len(found.x_train), len(found.x_test)) == (len(found.y_train), len(found.y_test))
        parts = (found.x_train, found.y_train, found.x_test, found.y_test)
        content = b"".join(part.tobytes() for part in parts)
        first[:] = first or [content]
        return content == first[0]

    return read


def _study(whole: Study) -> Callable[[Path], bool]:
    def read(path: Path) -> bool:
        found = Study.from_json(path.read_text(encoding="utf-8"))
        assert Study.from_json(found.to_json()) == found
        return found == whole

    return read


def _saved(write: Callable[[Path], Any], place: Path) -> bytes:
    write(place)
    return place.read_bytes()


def subjects(place: Path) -> dict[str, Subject]:
    """All kinds of files by name; `place` holds what belongs to them."""
    whole = _saved(lambda path: checkpoint.save(path, TREE, metadata={"loss": 0.5}), place / "tree.npz")
    plain = {kind: json.dumps(dataclasses.asdict(kind())).encode() for kind in (TrainSettings, SweepSettings)}
    arguments = json.dumps({"experiment": "il-theory/online", "quick": True, "seeds": 2}).encode()
    chance = np.random.default_rng(0)
    x, y = chance.normal(size=(20, 3)).astype(np.float32), np.arange(20) % 2
    arrays = _saved(lambda path: np.savez(path, x=x, y=y), place / "own.npz")
    rows = [b"a,b,label", *(f"{a:.3f},{b:.3f},{kind}".encode() for (a, b, _), kind in zip(x, y, strict=True))]
    text = b"\n".join(rows)
    model = vc.nn.MLP((3, 2), key=jax.random.key(0))
    tensors = _saved(lambda path: save_safetensors(path, model), place / "own.safetensors")
    sections = [Section("Rows", tables=[Table("T", ["a"], [["1"]])])]
    study = Study("A title", "It holds.", "vicinal", {"seeds": 1}, {"cores": 2}, sections, numbers={"a": [1.5]})

    def packed_table(chance: random.Random, content: bytes) -> bytes:
        if chance.random() < 0.5:
            return edits.bytewise(chance, content)
        return gzip.compress(edits.table(chance, gzip.decompress(content)), 1)

    def tensor(path: Path) -> bool:
        found = load_safetensors(path, model)
        assert _forms(found) == _forms(model)
        return _bits(found) == _bits(model)

    return {
        "checkpoint": Subject(whole, edits.bytewise, _same_tree, "tree.npz"),
        "checkpoint with a right digest": Subject(whole, edits.forged, _tree, "tree.npz"),
        **_sweep(place / "sweep"),
        "config of a run": Subject(plain[TrainSettings], edits.json_text, _settings(TrainSettings), "config.json"),
        "config of a sweep": Subject(plain[SweepSettings], edits.json_text, _settings(SweepSettings), "config.json"),
        "config of an experiment": Subject(arguments, edits.json_text, _arguments, "config.json"),
        "npz": Subject(arrays, edits.zipped, _data(), "own.npz"),
        "csv": Subject(text, edits.table, _data(), "own.csv"),
        "csv.gz": Subject(gzip.compress(text), packed_table, _data(), "own.csv.gz"),
        "parquet": Subject(_parquet(x, y), edits.bytewise, _data(), "own.parquet"),
        **{f"image ({kind})": _pictures(place / kind, kind) for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp")},
        "safetensors": Subject(tensors, edits.lengthened, tensor, "own.safetensors"),
        "stored results": Subject(study.to_json().encode(), edits.json_text, _study(study), "study.json"),
    }


def _sweep(folder: Path) -> dict[str, Subject]:
    """The log of a sweep beside its checkpoint, and what the checkpoint says of it."""

    def make(rate: Any) -> Any:
        return vc.rules.Backprop(), optax.sgd(rate)

    examples = np.eye(4, dtype=np.float32), np.arange(4)
    given: Any = {"batch_size": 4, "evaluate_every": 2, "steps": 6, "group_size": 1, "progress": False}
    vc.train.sweep(make, lambda key: vc.nn.MLP((4, 4), key=key), examples, {"rate": [0.1, 0.2]}, folder=folder, **given)
    (wave,) = folder.glob("wave-*.npz")
    metadata, log = metadata_of(wave), (folder / "metrics.jsonl").read_bytes()
    settings = {name: metadata[name] for name in ("batch_size", "steps_per_epoch", "members", "evaluate_every")}
    records = [json.loads(line) for line in log.splitlines()]
    usual = inspect.signature(vc.train.sweep).parameters
    fields = {field.name: usual[field.name].default for field in dataclasses.fields(Options)} | given
    del fields["group_size"]
    options = Options(**fields | {"folder": folder, "resume": True})

    def read_log(path: Path) -> bool:
        with (
            locked(folder) as held,
            Files(options, held, 6, settings, lambda: metadata["fingerprint"], [0, 1]) as files,
        ):
            for member in (0, 1):
                own = [record for record in records if record["member"] == member]
                assert [{"member": member, **record} for record in files.records_of(member)] == own
        return True

    def read_wave(path: Path) -> bool:
        found = metadata_of(path)
        if "wave" in found:
            assert len(found["wave"]) == len(found["live"]) == len(found["steps"]) > 0
            assert found["wave"] in found["waves"]
            assert all(isinstance(live, bool) for live in found["live"])
            assert found["group_size"] >= 1
        return found == metadata

    def change(chance: random.Random, content: bytes) -> bytes:
        return _with_metadata(content, edits.json_value(chance, metadata))

    return {
        "log": Subject(log, edits.json_lines, read_log, "sweep/metrics.jsonl"),
        "metadata of a sweep": Subject(wave.read_bytes(), change, read_wave, "forged/wave-0.npz"),
    }


def _with_metadata(content: bytes, metadata: Any) -> bytes:
    members = edits.members_of(content)
    header = json.loads(members[edits.HEADER]) | {"metadata": metadata}
    return edits.packed(members | {edits.HEADER: json.dumps(header).encode()})


def _parquet(x: np.ndarray, y: np.ndarray) -> bytes:
    import pandas

    buffer = io.BytesIO()
    pandas.DataFrame({"a": x[:, 0], "b": x[:, 1], "label": y}).to_parquet(buffer)
    return buffer.getvalue()


def _pictures(folder: Path, kind: str) -> Subject:
    from PIL import Image

    for i, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for number in range(2):
            pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3) + 40 * i + number
            Image.fromarray(pixels).save(folder / name / f"{number}.{kind}")
    path = folder / "cat" / f"0.{kind}"
    return Subject(
        path.read_bytes(), edits.bytewise, _data(lambda path: str(path.parent.parent)), f"{kind}/cat/0.{kind}"
    )

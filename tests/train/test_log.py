"""JSON logs: exact numbers, and records that survive a crash at any byte."""

import json
import math
import os

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from vicinal.train.log import JSONLog, read

relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
records = st.lists(st.dictionaries(st.text(), values, max_size=4), max_size=4)


@relaxed
@given(written=records)
def test_records_are_read_back_exactly(tmp_path, written):
    path = tmp_path / "metrics.jsonl"
    path.unlink(missing_ok=True)
    with JSONLog(path) as log:
        for record in written:
            log.write(record)
    assert read(path) == written
    assert log.records == written
    assert repr(read(path)) == repr(written)  # equality alone would not tell 1 from 1.0, or 0.0 from -0.0


def test_array_scalars_become_numbers(tmp_path):
    record = {
        "float32": np.float32(0.1),
        "bfloat16": jnp.asarray(0.1, jnp.bfloat16),
        "jax": jnp.asarray(1 / 3, jnp.float32),
        "int": jnp.asarray(7),
        "bool": np.bool_(True),
        "vector": jnp.array([1.0, jnp.nan, -jnp.inf]),
        "nested": {"list": [np.int64(2), (math.inf, 1.5)]},
        "float64": np.nextafter(1.0, 2.0),
    }
    with JSONLog(tmp_path / "metrics.jsonl") as log:
        log.write(record)
    expected = {
        "float32": 13421773 / 2**27,  # 0.1 rounded to 24 significant bits
        "bfloat16": 205 / 2**11,  # and to 8
        "jax": 11184811 / 2**25,
        "int": 7,
        "bool": True,
        "vector": [1.0, None, None],
        "nested": {"list": [2, [None, 1.5]]},
        "float64": 1 + 2**-52,
    }
    assert read(tmp_path / "metrics.jsonl") == [expected] == log.records
    assert type(log.records[0]["bool"]) is bool


def test_lines_are_strict_json(tmp_path):
    with JSONLog(tmp_path / "metrics.jsonl") as log:
        log.write({"loss": math.nan, "text": "two\nlines é \u2028"})

    def refuse(constant):
        raise AssertionError(constant)

    (line,) = (tmp_path / "metrics.jsonl").read_bytes().splitlines()
    assert json.loads(line, parse_constant=refuse) == {"loss": None, "text": "two\nlines é \u2028"}


def test_each_record_is_visible_at_once(tmp_path):
    with JSONLog(tmp_path / "metrics.jsonl") as log:
        assert read(tmp_path / "metrics.jsonl") == []
        for step in range(3):
            log.write({"step": step})
            assert read(tmp_path / "metrics.jsonl") == [{"step": s} for s in range(step + 1)]


def test_memory_only():
    with JSONLog(None, resume_at=3) as log:
        log.write({"step": 4, "loss": np.float32(0.5), "bad": math.inf})
    assert log.records == [{"step": 4, "loss": 0.5, "bad": None}]


def write_all(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_resuming_removes_later_records(tmp_path):
    path = tmp_path / "metrics.jsonl"
    note = {"note": "a record without a step"}
    write_all(path, [{"step": 1}, {"step": 2}, note, {"step": 3}, {"step": 2.5}, {"step": None}])
    with JSONLog(path, resume_at=2) as log:
        kept = [{"step": 1}, {"step": 2}, note, {"step": None}]
        assert read(path) == log.records == kept
        log.write({"step": 3, "again": True})
    assert read(path) == [*kept, {"step": 3, "again": True}]


def test_an_existing_log_is_continued_without_being_rewritten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step":   1}\n')  # spacing of another writer stays as it is
    with JSONLog(path) as log:
        log.write({"step": 2})
    assert path.read_text() == '{"step":   1}\n{"step": 2}\n'


def test_resuming_equals_a_run_without_interruption(tmp_path):
    whole, interrupted = tmp_path / "whole.jsonl", tmp_path / "interrupted.jsonl"
    with JSONLog(whole) as log:
        for step in range(5):
            log.write({"step": step, "loss": 1 / (step + 1)})
    content = whole.read_bytes()
    for length in range(len(content) + 1):
        interrupted.write_bytes(content[:length])
        complete = read(interrupted)
        assert complete == log.records[: len(complete)]
        # A record is complete once its closing brace is there, and the checkpoint may be older than the log.
        assert len(complete) == content[:length].count(b"}")
        last = len(complete) - 2
        with JSONLog(interrupted, resume_at=last) as resumed:
            for step in range(max(last + 1, 0), 5):
                resumed.write({"step": step, "loss": 1 / (step + 1)})
        assert interrupted.read_bytes() == content


def test_a_half_written_line_is_dropped_on_opening(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "no\xc3')
    assert read(path) == [{"step": 1}]
    with JSONLog(path) as log:
        log.write({"step": 2})
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize("bad", [b'{"step": ', b"[1]", b"", b'{"loss": NaN}', b'{"a": "\xff"}', b'{"a": 1}{"b": 2}'])
def test_damage_elsewhere_names_the_line(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    content = b'{"step": 1}\n' + bad + b'\n{"step": 3}\n'
    path.write_bytes(content)
    for reader in (read, lambda path: JSONLog(path, resume_at=1)):
        with pytest.raises(ValueError, match=r"Expected a JSON record on line 2 of .*remove or repair"):
            reader(path)
    assert path.read_bytes() == content


def test_a_crash_while_resuming_keeps_the_old_log(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    write_all(path, [{"step": 1}, {"step": 2}])

    def stop(*arguments, **options):
        raise OSError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        with pytest.raises(OSError, match="stopped"):
            JSONLog(path, resume_at=1)
    assert read(path) == [{"step": 1}, {"step": 2}]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([1], "Expected a dictionary, got list"),
        ({1: 2}, r"Expected strings as keys of record, got 1"),
        ({"a": [0, 1j]}, r"at record\['a'\]\[1\], got complex"),
        ({"a": {"b": object()}}, r"at record\['a'\]\['b'\], got object"),
        ({"a": np.complex64(1)}, r"at record\['a'\], got complex"),
    ],
)
def test_what_json_cannot_express_is_refused_and_not_written(tmp_path, record, message):
    with JSONLog(tmp_path / "metrics.jsonl") as log:
        with pytest.raises(TypeError, match=message):
            log.write(record)
        assert log.records == read(tmp_path / "metrics.jsonl") == []


def test_resume_at_must_be_an_integer(tmp_path):
    with pytest.raises(TypeError, match="integer"):
        JSONLog(tmp_path / "metrics.jsonl", resume_at=1.5)
    with JSONLog(tmp_path / "metrics.jsonl", resume_at=np.int32(1)) as log:
        log.write({"step": 2})


def test_a_missing_log(tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "absent.jsonl")


def test_an_exception_closes_the_file(tmp_path):
    log = JSONLog(tmp_path / "metrics.jsonl")
    log.write({"step": 1})
    with pytest.raises(RuntimeError), log:
        raise RuntimeError
    with pytest.raises(ValueError, match="closed file"):
        log.write({"step": 2})
    assert read(tmp_path / "metrics.jsonl") == log.records == [{"step": 1}]

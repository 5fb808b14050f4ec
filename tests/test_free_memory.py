"""The memory that is free, what arrays need, and the sentences: `vicinal._memory`."""

import resource
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vicinal import _memory, _reading

GB = 10**9


def machine(root, **files):
    """A folder like the system's, with `MemAvailable` of 64 GB and no limits but those given."""
    files = {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 62500000 kB\nSwapFree: 1000000 kB\n", **files}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_machine_says_what_is_free_and_swap_counts_if_wanted(tmp_path):
    assert _memory.free_host_bytes(machine(tmp_path)) == 64 * GB
    assert _memory.free_host_bytes(tmp_path, swap=True) == 65_024_000_000


@pytest.mark.parametrize("place", ["", "jobs/one"])
def test_a_control_group_or_one_above_it_leaves_its_limit(tmp_path, place):
    root = machine(
        tmp_path,
        **{
            "proc/self/cgroup": "0::/jobs/one\n",
            f"sys/fs/cgroup/{place}/memory.max": f"{8 * GB}\n",
            f"sys/fs/cgroup/{place}/memory.current": f"{5 * GB}\n",
            f"sys/fs/cgroup/{place}/memory.stat": f"anon 7\ninactive_file {GB}\nactive_file {2 * GB}\n",
        },
    )
    assert _memory.free_host_bytes(root) == 6 * GB, "pages of files can be dropped"


def test_a_control_group_without_a_limit_leaves_all(tmp_path):
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "5\n"}
    assert _memory.free_host_bytes(machine(tmp_path, **files)) == 64 * GB


def test_control_groups_of_the_first_version(tmp_path):
    own = "sys/fs/cgroup/memory/job/memory"
    limits = {f"{own}.limit_in_bytes": f"{3 * GB}\n", f"{own}.usage_in_bytes": f"{GB}\n"}
    root = machine(tmp_path, **{"proc/self/cgroup": "4:cpu:/other\n3:memory:/job\n"}, **limits)
    assert _memory.free_host_bytes(root) == 2 * GB


def test_a_process_beyond_its_limit_has_nothing_free(tmp_path):
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "4\n", "sys/fs/cgroup/memory.current": "9\n"}
    assert _memory.free_host_bytes(machine(tmp_path, **files)) == 0


def test_a_system_that_does_not_say_has_all_its_memory(tmp_path):
    pages = resource.getpagesize() * (_memory._total_bytes() // resource.getpagesize())
    assert _memory.free_host_bytes(tmp_path) == pages > GB


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_limit_of_the_address_space_counts():
    code = """
import resource
from vicinal import _memory
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 2**28, resource.getrlimit(resource.RLIMIT_AS)[1]))
assert 2**27 < _memory.free_host_bytes() <= 2**28, _memory.free_host_bytes()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bytes_of_arrays_shapes_and_keys():
    arrays = {"a": jnp.ones((3, 4)), "b": np.ones(5, np.float64), "k": jax.random.key(0), "f": abs, "n": None, "x": 2.0}
    assert _memory.bytes_of(arrays) == 48 + 40 + 8
    assert _memory.bytes_of(jax.eval_shape(lambda: jnp.zeros((2**31, 2**31)))) == 2**64
    assert _memory.largest(arrays) == "['a'], float32[3, 4]"


@pytest.mark.parametrize(
    ("size", "text"), [(999, "0.000999 MB"), (10**9 - 1, "1000 MB"), (GB, "1 GB"), (4 * 10**24, "4e+06 EB")]
)
def test_sizes_in_words(size, text):
    assert _memory.size_text(size) == text


def test_room_is_refused_only_if_it_certainly_does_not_suffice(monkeypatch):
    monkeypatch.setattr(_memory, "free_host_bytes", lambda *, swap: 3 * GB)
    _memory.check_room(3 * GB, "data", "take less")
    _memory.check_room(3 * GB, "data", "take less", jax.devices())
    with pytest.raises(MemoryError) as error:
        _memory.check_room(3 * GB + 10**7, "data", "take less")
    assert str(error.value) == "expected memory of at least 3.01 GB for data, got 3 GB free; take less"


def test_devices_that_report_their_memory_are_asked(monkeypatch):
    class Device:
        platform = "gpu"

        def memory_stats(self):
            return {"bytes_limit": 5 * GB, "bytes_in_use": 2 * GB}

    assert _memory.free_bytes([Device()]) == 3 * GB
    assert _memory.free_bytes([Device(), Device()], swap=True) == 6 * GB, "a device has no swap space"


def numpy_fails():
    np.ones(2**50)


def jax_fails():
    jnp.ones(2**50).block_until_ready()


@pytest.mark.parametrize("fail", [numpy_fails, jax_fails])
def test_errors_of_allocations_are_explained(fail):
    words = r"^expected memory for the test, got none left \(.*\); .* free now; try less$"
    with pytest.raises(MemoryError, match=words), _memory.explained("the test", "try less"):
        fail()


def test_other_errors_and_explained_ones_pass():
    for error in (ValueError("a"), jax.errors.JaxRuntimeError("INTERNAL: b"), _memory.OutOfMemory("c")):
        with pytest.raises(type(error)) as found, _memory.explained("the test", "try less"):
            raise error
        assert found.value is error


def test_a_small_file_is_read_however_little_is_free(tmp_path, monkeypatch):
    """As the settings of a run in a control group that is at its limit."""
    monkeypatch.setattr(_reading, "free_host_bytes", lambda: 0)
    (tmp_path / "small").write_bytes(b"12")
    assert _reading.read_bytes(tmp_path / "small") == b"12"
    with open(tmp_path / "large", "wb") as large:
        large.truncate(2**28 + 1)
    with pytest.raises(OSError, match="it has 268435457 bytes, and 0 of memory are free"):
        _reading.read_bytes(tmp_path / "large")

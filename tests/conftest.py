"""Strict mode for every test: dtype and rank promotion are errors, and there are two (fake) devices."""

import gc
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")


def accepts(flags):
    """Whether this release of JAX knows these flags: an unknown one ends the process."""
    command = [sys.executable, "-c", "import jax; jax.numpy.zeros(1)"]
    return not subprocess.run(command, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True).returncode


# Compiled programs are kept for all processes of a run and for the next runs: that saves a third of the time.
COMPILED = Path(__file__).resolve().parent.parent / ".pytest_cache" / "compiled"
COMPILED_LIMIT = 100_000  # files, of some 6 KB each

if "VICINAL_TESTS" not in os.environ:  # the processes of a run inherit what the first one finds
    os.environ["VICINAL_TESTS"] = "running"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    # Compiling takes most of the time, mostly to optimise loops that run a few times.
    flags += " --xla_backend_optimization_level=0"
    # One piece of code per program instead of one per function halves the memory mappings; see `MAPPED_LIMIT`.
    flags += " --xla_cpu_parallel_codegen_split_count=1"
    quicker = f"{flags} --xla_cpu_use_fusion_emitters=false"  # a third of the time, where there is that choice
    os.environ["XLA_FLAGS"] = quicker if accepts(quicker) else flags
    if COMPILED.exists() and len(os.listdir(COMPILED)) > COMPILED_LIMIT:
        shutil.rmtree(COMPILED)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(COMPILED))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def take_a_core():
    """Pins each process of a parallel run to one core: threads of many small programs only disturb each other."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


take_a_core()

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


MAPPED = Path("/proc/self/maps")
MAPPED_LIMIT = 50_000  # Linux allows a process 65 530; beyond that, compiling ends in a segmentation fault


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown():
    """Drops compiled programs when there are many: each takes memory mappings, and their number is limited."""
    if MAPPED.exists() and MAPPED.read_bytes().count(b"\n") > MAPPED_LIMIT:
        jax.clear_caches()
        gc.collect()


# As the last, these would keep one process waiting for the other.
LONGEST = ("test_examples.py", "test_readme.py", "test_quick_runs.py")


PART = os.environ.get("VICINAL_TESTS_PART", "0/1")  # `2/4`: the third of four parts of the tests


def belongs(name):
    """Whether a test is in the part that runs. Parts are drawn by names, so that a new test moves no other."""
    part, parts = map(int, PART.split("/"))
    return zlib.crc32(name.encode()) % parts == part


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Marks tests of full matrices as slow (`-m "not slow"` replaces `-m "not full"`), and begins with the longest."""
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker("slow")
    left_out = [item for item in items if not belongs(item.nodeid)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if belongs(item.nodeid)]
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture
def x64():
    """Run a test in float64."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)

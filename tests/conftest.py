"""Strict mode for every test: dtype and rank promotion are errors, and there are two (fake) devices."""

import gc
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")


def accepts(flags):
    """Whether this release of JAX knows these flags; with an unknown one it would end the process."""
    command = [sys.executable, "-c", "import jax; jax.numpy.zeros(1)"]
    return not subprocess.run(command, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True).returncode


if "VICINAL_TESTS" not in os.environ:  # the processes of a run inherit what the first one finds
    os.environ["VICINAL_TESTS"] = "running"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    # Most of the time goes into compiling, and most of that into optimising loops that run a few times.
    flags += " --xla_backend_optimization_level=0"
    quicker = f"{flags} --xla_cpu_use_fusion_emitters=false"  # a third of the time, where there is that choice
    os.environ["XLA_FLAGS"] = quicker if accepts(quicker) else flags


def take_a_core():
    """Keeps a process of a parallel run on a core of its own: threads of many small programs only get in their way."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


take_a_core()

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    """All processes of a run share what they compile: the same programs come up in many tests."""
    if not hasattr(config, "workerinput"):  # the process that starts the others, which inherit its environment
        config.compiled = tempfile.mkdtemp(prefix="vicinal-compiled-")
        os.environ |= {
            "JAX_COMPILATION_CACHE_DIR": config.compiled,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }


def pytest_unconfigure(config):
    if hasattr(config, "compiled"):
        shutil.rmtree(config.compiled, ignore_errors=True)


MAPPED = Path("/proc/self/maps")
MAPPED_LIMIT = 20_000  # Linux allows a process 65 530; beyond that, compiling ends in a segmentation fault


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown():
    """Lets go of compiled programs when there are many: each takes mapped memory, and a process may have so much."""
    if MAPPED.exists() and MAPPED.read_bytes().count(b"\n") > MAPPED_LIMIT:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def x64():
    """Run a test in float64."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)

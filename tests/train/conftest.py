"""What tests of training watch and interrupt."""

import logging

import jax
import pytest

from vicinal.train import checkpoint, loop
from vicinal.train.progress import TrainingProgress


@pytest.fixture
def compiled():
    """The names of what is compiled while a test runs."""
    names, logger = [], logging.getLogger("jax")

    class Listener(logging.Handler):
        def emit(self, record):
            message = record.getMessage()
            if message.startswith("Compiling "):
                names.append(message.split()[1].removeprefix("jit(").removesuffix(")"))

    handler, propagate = Listener(), logger.propagate
    jax.config.update("jax_log_compiles", True)
    logger.addHandler(handler)
    logger.propagate = False
    yield names
    logger.propagate = propagate
    logger.removeHandler(handler)
    jax.config.update("jax_log_compiles", False)


@pytest.fixture
def interrupt(monkeypatch):
    """interrupt(step): Ctrl-C once that many steps are done. `cut` sets how many steps a compiled call takes."""

    def at(step):
        def update(self, done, *_):
            if done >= step:
                raise KeyboardInterrupt

        monkeypatch.setattr(TrainingProgress, "update", update)

    return at


@pytest.fixture
def saved(monkeypatch):
    """The step of each checkpoint that is written."""
    steps, save = [], checkpoint.save

    def note(path, state, **options):
        steps.append(int(state.step))
        save(path, state, **options)

    monkeypatch.setattr(checkpoint, "save", note)
    return steps


@pytest.fixture
def cut(monkeypatch):
    return lambda steps: monkeypatch.setattr(loop, "_LONGEST_CHUNK", steps)

"""The harness of the benchmarks: contestants take turns, times become medians and ratios, results become a study.

Times vary with the load of the machine, so that only contestants of one run can be compared. Each round measures all of
them; a ratio is the median over rounds of the ratio within a round.
"""

import argparse
import dataclasses
import functools
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import vicinal as vc
from vicinal.environment import environment, now
from vicinal.files import write_text_atomically
from vicinal.report import Section, Study, Table
from vicinal.train import fit

Measurement = Callable[[], float]
"""Runs a contestant once and returns the seconds per step."""


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of each contestant in each round."""

    seconds: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        """The median over rounds."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, floor: str) -> float:
        """The median over rounds of the ratio to another contestant in the same round."""
        return statistics.median(a / b for a, b in zip(self.seconds[name], self.seconds[floor], strict=True))

    def table(self, title: str, floor: str, unit: float = 1e6, digits: str = ".0f") -> Table:
        """A table with each contestant's median, by default in microseconds, and its ratio to the floor."""
        names = {1e6: "µs", 1e3: "ms", 1.0: "s"}
        rows: list[list[Any]] = [
            [name, f"{unit * self.median(name):{digits}}", f"{self.ratio(name, floor):.2f}"] for name in self.seconds
        ]
        return Table(title, ["", names[unit], f"over {floor}"], rows)


def take_turns(contestants: Mapping[str, Measurement], rounds: int) -> Times:
    """Measures all contestants in each round, one after the other; each runs once beforehand, to compile."""
    for measure in contestants.values():
        measure()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, measure in contestants.items():
            seconds[name].append(measure())
    return Times(seconds)


def stepping(
    step: Callable[..., Any],
    carry: Any,
    arguments: Sequence[Any],
    repeats: int,
    steps: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Measurement:
    """Measures repeated calls of `*carry, _ = step(*carry, *arguments)`; each call takes `steps` steps.

    With `time.process_time` as clock, time that other work on the machine takes does not count.
    """
    held = [carry]

    def measure() -> float:
        carry, last, start = held[0], None, clock()
        for _ in range(repeats):
            *carry, last = step(*carry, *arguments)
        jax.block_until_ready((carry, last))
        held[0] = carry
        return (clock() - start) / repeats / steps

    return measure


def training(
    rule: Any, optimizer: Any, model: Any, data: Any, *, graph: Any, batch_size: int, steps: int
) -> Measurement:
    """Measures an update in the compiled training loop of `vicinal.train.fit`."""
    how: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "evaluate_every": steps, "progress": False}

    def measure() -> float:
        return fit(rule, model, optimizer, data, key=jax.random.key(2), graph=graph, **how).seconds_per_step

    return measure


def updating(rule: Any, optimizer: Any, model: Any, batch: int, steps: int) -> Measurement:
    """Processor seconds of an update in a compiled loop, whose examples follow each other."""
    x, y = random_digits(steps * batch)
    graph = vc.capture(model, x[0])
    (arrays, rest), key = eqx.partition(model, eqx.is_array), jax.random.key(3)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def run(arrays: Any, state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any, jax.Array]:
        def update(carry: tuple[Any, Any], rows: tuple[jax.Array, jax.Array]) -> tuple[tuple[Any, Any], jax.Array]:
            arrays, state = carry
            model, state, _, loss, _ = rule.step(graph, optimizer, eqx.combine(arrays, rest), state, (), *rows, key=key)
            return (eqx.partition(model, eqx.is_array)[0], state), loss

        carry, losses = jax.lax.scan(update, (arrays, state), (x, y))
        return *carry, losses[-1]

    batches = x.reshape(steps, batch, -1), y.reshape(steps, batch)
    carry = jax.tree.map(jnp.copy, (arrays, optimizer.init(graph.trainable(model))))  # those given are reused
    return stepping(run, carry, batches, 1, steps, clock=time.process_time)


def random_digits(examples: int = 20_000) -> tuple[jax.Array, jax.Array]:
    """Random inputs in the shape of MNIST, with labels that a network can learn."""
    x = jax.random.uniform(jax.random.key(0), (examples, 784))
    return x, jnp.argmax(x[:, :10], axis=1)


def mnist_network() -> tuple[Any, Any]:
    """The network 784-256-256-10 with ReLU, and its graph."""
    model = vc.nn.preset("mnist-mlp", key=jax.random.key(1))
    return model, vc.capture(model, jnp.ones(784))


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a benchmark: a paragraph, tables, and their numbers."""

    summary: str
    sections: list[Section]
    numbers: dict[str, Any]


def main(name: str, title: str, documentation: str, run: Callable[..., Result], **options: Any) -> None:
    """The command line of a benchmark: runs it, prints its tables, and writes a study if asked.

    Args:
        name: The name of the file, without its ending.
        title: The title of the page.
        documentation: The docstring of the benchmark; its first line is the description.
        run: `run(**options)` measures and returns the result.
        **options: The options of the command line, with their defaults; a list takes several values.
    """
    parser = argparse.ArgumentParser(description=documentation.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write a study to this file")
    for option, default in options.items():
        several = isinstance(default, list)
        kind: Any = type(default[0]) if several else type(default)
        how = {"action": "store_true"} if kind is bool else {"type": kind, "default": default}
        parser.add_argument(f"--{option.replace('_', '-')}", **how, **({"nargs": "+"} if several else {}))
    given = vars(parser.parse_args())
    path, load, start = given.pop("json"), os.getloadavg()[0], time.monotonic()
    found = run(**given)
    words = [
        f"--{option.replace('_', '-')} {_words(given[option])}"
        for option in options
        if given[option] != options[option]
    ]
    study = Study(
        title=title,
        summary=found.summary,
        command=" ".join([f"python benchmarks/{name}.py", *words]),
        settings=given,
        environment=environment() | {"load_before": load, "seconds": round(time.monotonic() - start)},
        sections=found.sections,
        numbers=found.numbers,
        when=now(),
    )
    for section in found.sections:
        for table in section.tables:
            print(f"\n{table.title}")
            for row in [table.columns, *table.rows]:
                print("  ".join(f"{cell!s:>12}" if i else f"{cell!s:32}" for i, cell in enumerate(row)))
    print(f"\n{found.summary}")
    if path is not None:
        write_text_atomically(path, study.to_json())


def _words(value: Any) -> str:
    return "" if value is True else " ".join(map(str, value)) if isinstance(value, list) else str(value)

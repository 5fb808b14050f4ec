"""OVQ-attention compared with full attention and other sequence operators: forward, backward, token by token.

    python benchmarks/attention.py --lengths 512 4096 16384 --json attention.json

Times are medians after warming up (for a token: of the mean over a chunk); compile time is measured separately. Ratios
divide full attention's time by the operator's. OVQ is measured with each number of centroids and each chunk size. On a
GPU, at its usual sizes:

    python benchmarks/attention.py --batch 8 --heads 16 --features 128 --dtype bfloat16 --num-centroids 1024 2048
"""

import dataclasses
import itertools
from typing import Any

from harness import Result, main

from vicinal.report import Section, Table
from vicinal_experiments.ovq.cost import BOTH, DECODE, FORWARD, FULL, OVQ, Operator, Sizes, measure, operators, room

SEVERAL = ("num_centroids", "chunk_size")


def run(lengths: list[int], modes: list[str], only: list[str], repetitions: int, **sizes: Any) -> Result:
    """The cost of each operator, by mode and length; `only` names those to measure in addition to full attention."""
    unknown = {*only} - {"all", *operators(Sizes(), 1)}
    if unknown:
        raise SystemExit(f"expected operators of {', '.join(operators(Sizes(), 1))}, got {', '.join(sorted(unknown))}")
    every = [
        Sizes(**(sizes | dict(zip(SEVERAL, pair, strict=True))))
        for pair in itertools.product(*(sizes[name] for name in SEVERAL))
    ]
    found, sections = [], []
    for mode in modes:
        rows: list[list[Any]] = []
        for length in lengths:
            floor = None
            for name, own, operator in _measured(every, room(mode, every[0], length, repetitions)):
                if name not in {FULL, *only} and "all" not in only:
                    continue
                cost = measure(operator, mode, own, length, repetitions)
                floor = cost.seconds if floor is None else floor
                several = {} if len(every) == 1 or name != OVQ else {key: getattr(own, key) for key in SEVERAL}
                found.append({"operator": name, "mode": mode, "length": length} | several | dataclasses.asdict(cost))
                label = " ".join([name, *map(str, several.values())])
                rows.append([label, length, *_cells(cost, floor / cost.seconds)])
                print(mode, *rows[-1], flush=True)
        columns = ["operator", "tokens", "ms", "ratio", "temporary (MB)", "state (MB)", "compiled in (s)"]
        sections.append(Section(mode, tables=[Table("Medians", columns, rows)]))
    return Result("Ratios are full attention's time over the operator's.", sections, {"costs": found})


def _cells(cost: Any, ratio: float) -> list[str]:
    megabytes = [f"{size / 1e6:.3g}" for size in (cost.temporary_bytes, cost.state_bytes)]
    return [f"{1e3 * cost.seconds:.3g}", f"{ratio:.2f}", *megabytes, f"{cost.compile_seconds:.1f}"]


def _measured(every: list[Sizes], length: int) -> list[tuple[str, Sizes, Operator]]:
    """Measures each operator at the first sizes, and OVQ at the others."""
    first = [(name, every[0], operator) for name, operator in operators(every[0], length).items()]
    return first + [(OVQ, sizes, operators(sizes, length)[OVQ]) for sizes in every[1:]]


if __name__ == "__main__":
    sizes = {field.name: field.default for field in dataclasses.fields(Sizes)}
    main(
        "attention",
        "OVQ-attention against other sequence operators",
        __doc__,
        run,
        lengths=[512, 1024, 2048, 4096, 8192, 16384],
        modes=[FORWARD, BOTH, DECODE],
        only=["all"],
        repetitions=5,
        **{name: [value] if name in SEVERAL else value for name, value in sizes.items()},
    )

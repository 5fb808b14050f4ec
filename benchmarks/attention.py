"""OVQ-attention against full attention and the other sequence operators: forward, backward, token by token.

    python benchmarks/attention.py --lengths 512 4096 16384 --json attention.json

Times are medians after warming up (of a token: of the mean over a chunk of them); compile time stands apart. Ratios
are full attention's time over the operator's. With several numbers of centroids or sizes of chunks, OVQ is measured
with each. On a GPU, at its usual sizes:

    python benchmarks/attention.py --batch 8 --heads 16 --features 128 --dtype bfloat16 --num-centroids 1024 2048
"""

import argparse
import dataclasses
import itertools
import json
from pathlib import Path

from vicinal.environment import environment
from vicinal.reproduce.ovq.cost import BOTH, DECODE, FORWARD, FULL, OVQ, Operator, Sizes, measure, operators, room

SEVERAL = ("num_centroids", "chunk_size")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--modes", nargs="+", choices=[FORWARD, BOTH, DECODE], default=[FORWARD, BOTH, DECODE])
    parser.add_argument("--operators", nargs="+", default=None, help="by name; all by default, full attention always")
    parser.add_argument("--repetitions", type=int, default=5)
    for field in dataclasses.fields(Sizes):
        option, kind = f"--{field.name.replace('_', '-')}", type(field.default)
        several = {"nargs": "+", "default": [field.default]} if field.name in SEVERAL else {"default": field.default}
        parser.add_argument(option, type=kind, **several)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    unknown = {*(arguments.operators or ())} - {*operators(Sizes(), 1)}
    if unknown:
        parser.error(f"expected operators among {', '.join(operators(Sizes(), 1))}, got {', '.join(sorted(unknown))}")
    chosen = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Sizes)}
    every = [
        Sizes(**(chosen | dict(zip(SEVERAL, pair, strict=True))))
        for pair in itertools.product(*(chosen[name] for name in SEVERAL))
    ]
    print(f"{environment()}\n{every[0]}")
    found = []
    for mode, length in itertools.product(arguments.modes, arguments.lengths):
        floor = None
        for name, sizes, operator in _measured(every, room(mode, every[0], length, arguments.repetitions)):
            if arguments.operators is not None and name not in {FULL, *arguments.operators}:
                continue
            cost = measure(operator, mode, sizes, length, arguments.repetitions)
            floor = cost.seconds if floor is None else floor
            several = {} if len(every) == 1 or name != OVQ else {key: getattr(sizes, key) for key in SEVERAL}
            found.append({"operator": name, "mode": mode, "length": length} | several | dataclasses.asdict(cost))
            print(
                f"{mode:22} {length:6} {' '.join([name, *map(str, several.values())]):18} {1e3 * cost.seconds:10.3f} ms"
                f"   {floor / cost.seconds:6.2f} x   temporary {cost.temporary_bytes / 1e6:9.1f} MB   "
                f"state {cost.state_bytes / 1e6:7.3f} MB   compiled in {cost.compile_seconds:.1f} s",
                flush=True,
            )
            if arguments.json is not None:  # after each, so that a run that is cut off leaves what it has
                record = {"sizes": chosen, "environment": environment(), "costs": found}
                arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def _measured(every: list[Sizes], length: int) -> list[tuple[str, Sizes, Operator]]:
    """What is measured: each operator at the first sizes, and OVQ at the others."""
    first = [(name, every[0], operator) for name, operator in operators(every[0], length).items()]
    return first + [(OVQ, sizes, operators(sizes, length)[OVQ]) for sizes in every[1:]]


if __name__ == "__main__":
    main()

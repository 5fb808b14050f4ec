"""OVQ-attention against full attention and the other sequence operators: forward, backward, token by token.

    python benchmarks/attention.py --lengths 512 4096 16384 --json attention.json

Times are medians after warming up; compile time stands apart. Ratios are full attention's time over the operator's.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from vicinal.environment import environment
from vicinal.reproduce.ovq.cost import BOTH, DECODE, FORWARD, FULL, Sizes, measure, operators


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--modes", nargs="+", choices=[FORWARD, BOTH, DECODE], default=[FORWARD, BOTH, DECODE])
    parser.add_argument("--operators", nargs="+", default=None, help="by name; all by default")
    parser.add_argument("--repetitions", type=int, default=5)
    for field in dataclasses.fields(Sizes):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=int, default=field.default)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    unknown = {*(arguments.operators or ())} - {*operators(Sizes(), 1)}
    if unknown:
        parser.error(f"expected operators among {', '.join(operators(Sizes(), 1))}, got {', '.join(sorted(unknown))}")
    sizes = Sizes(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Sizes)})
    print(f"{environment()}\n{sizes}")
    found = []
    for mode in arguments.modes:
        for length in arguments.lengths:
            floor = None
            for name, operator in operators(sizes, length).items():
                if arguments.operators is not None and name not in {FULL, *arguments.operators}:
                    continue
                cost = measure(operator, mode, sizes, length, arguments.repetitions)
                floor = cost.seconds if floor is None else floor
                found.append({"operator": name, "mode": mode, "length": length, **dataclasses.asdict(cost)})
                print(
                    f"{mode:22} {length:6} {name:18} {1e3 * cost.seconds:10.3f} ms   {floor / cost.seconds:6.2f} x   "
                    f"temporary {cost.temporary_bytes / 1e6:9.1f} MB   state {cost.state_bytes / 1e6:7.3f} MB   "
                    f"compiled in {cost.compile_seconds:.1f} s",
                    flush=True,
                )
    if arguments.json is not None:
        record = {"sizes": dataclasses.asdict(sizes), "environment": environment(), "costs": found}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

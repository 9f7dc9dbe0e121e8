"""``python -m tests.fuzz --inputs 10000``: mutate valid inputs; whatever is not promised is told.

Each input is made from its reader, the seed and its number alone, so that ``--first N --inputs 1`` makes it
again.  They are read in a process of its own, which is watched: one that takes too long is ended.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.fuzz.readers import READERS
from tests.fuzz.watch import fuzz


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="for each reader")
    parser.add_argument("--reader", choices=READERS, action="append", help="only this one; repeat")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=20.0, help="seconds for one input")
    asked = parser.parse_args()
    bad = 0
    for name in asked.reader or READERS:
        began = time.monotonic()
        outcomes = fuzz(
            name, range(asked.first, asked.first + asked.inputs), asked.seed, asked.limit
        )
        problems = {
            outcome: n for outcome, n in outcomes.items() if outcome not in ("read", "refused")
        }
        bad += sum(problems.values())
        print(
            f"{name:<10} {asked.inputs:>7,} inputs: {outcomes['read']:,} read, {outcomes['refused']:,} "
            f"refused, {sum(problems.values()):,} problems; {time.monotonic() - began:.0f} s",
            flush=True,
        )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

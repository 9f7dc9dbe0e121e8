"""Does the demo say what it is meant to say, whatever the seed?  The table in docs/results.md.

    python benchmarks/demo.py --out /tmp/demo-seeds --seeds 0 1 2 3 4

The stand-ins are drawn and prepared once.  Then the study's five strategies and MIX+KD run with every seed,
and the baseline again with half as many epochs more.  Stopped, the same command goes on.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path

from crossfer.datasets import prepare
from crossfer.demo import LONGER, demo_experiment, draw
from crossfer.evaluation.rows import Results
from crossfer.experiment import run_experiment
from crossfer.experiment.config import DatasetConfig
from crossfer.terms import BL


def seconds() -> float:
    """Return the processor seconds of this process, and of those that it started and that have ended."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    raw, data, began = given.out / "stand-ins", given.out / "data", seconds()
    draw(raw)
    print(f"drawn: {seconds() - began:.0f} s of processor time", flush=True)
    began = seconds()
    asked = demo_experiment(raw)
    for one in (asked.source, *asked.targets):
        if not (data / one.path).exists():
            prepare(raw / one.path, data / one.path, one.preparation())
    targets = [DatasetConfig(path=one.path) for one in asked.targets]
    asked = asked.model_copy(update={"data": data, "targets": targets})
    print(f"prepared: {seconds() - began:.0f} s", flush=True)
    for seed in given.seeds:
        began = seconds()
        demo = asked.model_copy(update={"seeds": [seed]})
        results = run_experiment(demo, given.out / f"seed-{seed}", workers=given.workers)
        print(f"\nseed {seed}: {seconds() - began:.0f} s", flush=True)
        show(results)
        alone = {"strategies": demo.strategies[:1], "recipes": {BL: LONGER}}
        longer = run_experiment(demo.model_copy(update=alone), given.out / f"longer-{seed}")
        accuracies = [one.summary[0].on_source.test.accuracy for one in (results, longer)]
        print(
            "BL: {:.1f} %, with half as many epochs more {:.1f} %".format(*accuracies), flush=True
        )


def show(results: Results) -> None:
    """Print what each strategy changes on the source and on its target: points, 95 % intervals."""
    for row in results.summary:
        if row.strategy != BL:
            changes = (
                f"{side} {change.points:+.1f} ({change.interval[0]:+.1f} to {change.interval[1]:+.1f})"
                for side, change in (("source", row.memory_integrity), ("target", row.gain))
                if change.interval
            )
            print(f"{row.target:6} {row.strategy:7}", *changes, f"{row.cost.seconds:.0f} s")


if __name__ == "__main__":
    main()

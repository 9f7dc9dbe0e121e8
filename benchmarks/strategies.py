"""The tables of docs/strategies.md, from a finished experiment: one for each regime of past data.

    crossfer run configs/strategies.yaml --data FOLDER --out runs/strategies
    python benchmarks/strategies.py runs/strategies

Test accuracies in per cent, means over seeds; changes in points with 95 % intervals over images, people and
seeds; against FU, the paired difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from crossfer.evaluation.rows import Result, StrategyComparison
from crossfer.experiment import load_results
from crossfer.report.tables import compared
from crossfer.report.view import View, number, signed, span
from crossfer.terms import BL, PAST_DATA, SIDES

AGAINST = "FU"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("experiment", type=Path)
    view = View(load_results(parser.parse_args().experiment))
    for target in view.targets:
        seeds = ", ".join(map(str, view.seeds))
        tests = (view.test_images(target.name, side) for side in SIDES)
        print("\n{}: seeds {}; {:,} and {:,} test images\n".format(target.name, seeds, *tests))
        show(view, target.name)


def show(view: View, target: str) -> None:
    """Print the tables of one target."""
    before, most = view.before(target), view.most(target, [AGAINST])
    for past_data in PAST_DATA:
        names = [s.name for s in view.strategies if s.past_data == past_data and s.name != BL]
        rows = sorted(view.most(target, names), key=lambda row: -row.memory_integrity.points)
        if not rows:
            continue
        print(f"\n**Past data: {past_data}**\n")
        print(
            "| strategy | source | target | integrity | gain | source, against FU | target, against FU "
            "| negative flips | cost, of FU's |\n|---|---|---|---|---|---|---|---|---|"
        )
        accuracies = " | ".join(number(before.on(side).test.accuracy) for side in SIDES)
        print(f"| {BL} | {accuracies} | | | | | | |")
        for row in rows:
            pairs = compared(view, target, row.strategy, AGAINST)
            print("|", " | ".join([*cells(row, pairs), cost(row, most)]), "|")


def cells(row: Result, against: Iterable[StrategyComparison | None]) -> list[str]:
    """Return the cells of one strategy's row."""
    flips = row.memory_integrity.flips
    return [
        row.strategy,
        *(number(row.on(side).test.accuracy) for side in SIDES),
        *(
            f"{signed(row.change(side).points)} ({span(row.change(side).interval)})"
            for side in SIDES
        ),
        *(
            f"{signed(one.paired.difference)} ({span(one.paired.interval)})" if one else ""
            for one in against
        ),
        number(100 * sum(flips.negative) / row.on_source.test.images) + " %",
    ]


def cost(row: Result, fu: Sequence[Result]) -> str:
    """Return the computation of a strategy's training as a share of FU's."""
    return f"{row.cost.flop / fu[0].cost.flop:.1%}" if fu else ""


if __name__ == "__main__":
    main()

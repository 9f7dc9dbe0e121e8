"""Commands for decisions: which strategy to use, and whether its network may be shipped."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from crossfer.cli.application import app, out_console
from crossfer.cli.options import check_finite, past_data_of, seconds_of
from crossfer.errors import CrossferError

if TYPE_CHECKING:
    from crossfer.evaluation.gate import Criterion
    from crossfer.evaluation.rows import Recommendation, Result, Results

command = partial(app.command, rich_help_panel="Decisions")


@command()
def recommend(
    folder: Annotated[Path, typer.Argument(help="The folder of a finished experiment.")],
    max_source_drop: Annotated[
        float | None,
        typer.Option(
            min=0, help="At most so many points lost on the source; then the target decides."
        ),
    ] = None,
    past_data: Annotated[
        str,
        typer.Option(help="What is left of the source: none, statistics, all, or images a class."),
    ] = "all",
    budget: Annotated[
        str | None, typer.Option(help="Training after the baseline's: 90s, 10min, 2h.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Name the strategy to use, within what you can afford, and say what it gives up.

    Chosen on validation data: the highest target accuracy of what keeps the source within a point (or your
    --max-source-drop); where nothing does, the highest mean of both.  The test figures stand beside.

    Example:  crossfer recommend runs/fer2013-ck48 --max-source-drop 1 --past-data none --budget 10min
    """
    import json
    from dataclasses import asdict

    from crossfer.evaluation.decision import Constraints
    from crossfer.evaluation.decision import recommend as choose
    from crossfer.experiment import load_results

    check_finite({"--max-source-drop": max_source_drop})
    results = load_results(folder)
    kind, exemplars = past_data_of(past_data)
    limits = Constraints(max_source_drop, kind, exemplars, seconds_of(budget))
    choices = choose(results.results, results.summary, results.strategies, limits)
    if as_json:
        found = [asdict(c) | {"folder": str(folder / results.run(c.run).folder)} for c in choices]
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for choice in choices:
        _say_choice(results, choice, folder)


def _say_choice(results: Results, choice: Recommendation, folder: Path) -> None:
    """Print a choice, why, all that there was to choose from, and where the network lies."""
    from crossfer.evaluation.decision import comparable
    from crossfer.report import explain, shipped
    from crossfer.terms import SIDES

    out_console.print(f"\n{choice.target}", style="bold")
    for sentence in explain(results, choice):
        out_console.print(sentence)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("\nstrategy", no_wrap=True)
    for column in ("validation\nsource", "\ntarget", "test\nsource", "\ntarget", "\nseconds"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for row in comparable(results.summary, choice.target):
        name = row.strategy
        remark = "front" if name in choice.front else ""
        if name in choice.ruled_out:
            remark = "ruled out"
        if name == choice.strategy:
            remark = "choice"
        tests = [row.on(side).test for side in SIDES]
        table.add_row(
            name,
            *(f"{row.on(side).validation.accuracy:.1f}" for side in SIDES),
            *(
                f"{test.accuracy:.1f}"
                + (" ({:.0f}–{:.0f})".format(*test.interval) if test.interval else "")
                for test in tests
            ),
            f"{row.cost.seconds:.0f}",
            remark,
        )
    out_console.print(table)
    for name, reasons in choice.ruled_out.items():
        out_console.print(f"Ruled out: {name} {'; '.join(reasons)}.")
    out_console.print(shipped(results, choice.run, folder), soft_wrap=True)


@command()
def gate(
    folder: Annotated[Path, typer.Argument(help="The folder of a finished experiment.")],
    max_source_drop: Annotated[
        float, typer.Option(min=0, help="Shown to lose at most so many points on the source.")
    ] = 1.0,
    min_target_gain: Annotated[
        float, typer.Option(help="Shown to gain at least so many points on the target.")
    ] = 0.0,
    max_class_drop: Annotated[
        float | None,
        typer.Option(min=0, help="Shown to lose at most so many points in any class."),
    ] = None,
    max_negative_flips: Annotated[
        float | None,
        typer.Option(min=0, help="Of 100 test images, at most so many right before and wrong now."),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help="In each group of this column of the sample tables; repeat at will."),
    ] = None,
    max_size_ratio: Annotated[
        float | None, typer.Option(min=0, help="At most so many times the old parameters.")
    ] = None,
    confidence: Annotated[
        float, typer.Option(help="One-sided, for all conditions together: between 0.5 and 1.")
    ] = 0.95,
    strategy: Annotated[
        str | None, typer.Option(help="The strategy to ship, instead of the recommended one.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Only this target.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
    junit: Annotated[
        Path | None, typer.Option(help="Write the conditions as a JUnit XML file, for CI.")
    ] = None,
) -> None:
    """Decide whether an update may be shipped: exit status 0 if its test figures prove it, 1 if not.

    What counts is not the measured change but what it exceeds with the confidence asked for: one-sided
    bounds of the paired bootstrap over test images, people and seeds, with Holm's correction for all that
    is asked.  Few test images prove little; then it says about how many would.

    Example:  crossfer gate runs/fer2013-ck48 --max-source-drop 1 --min-target-gain 5 --max-class-drop 10
    """
    import json
    from dataclasses import asdict

    from crossfer.evaluation.gate import Limits
    from crossfer.evaluation.gate import gate as ask
    from crossfer.experiment import load_results
    from crossfer.experiment.finished import Finished
    from crossfer.report import shipped

    if not 0.5 <= confidence < 1:
        raise CrossferError(f"--confidence {confidence:g}: must be between 0.5 and 1")
    check_finite(
        {
            "--max-source-drop": max_source_drop,
            "--min-target-gain": min_target_gain,
            "--max-class-drop": max_class_drop,
            "--max-negative-flips": max_negative_flips,
            "--max-size-ratio": max_size_ratio,
        }
    )
    results = load_results(folder)
    finished = Finished(folder, results)
    limits = Limits(
        max_source_drop,
        min_target_gain,
        max_class_drop,
        max_negative_flips,
        max_size_ratio,
        confidence,
    )
    rows = _to_ship(results, strategy, target)
    evidence = finished.evidence(rows)
    answers = [
        ask(
            row,
            evidence,
            limits,
            results.classes,
            {column: finished.groups(row, column) for column in by or ()},
            _size_ratio(results, row),
        )
        for row in rows
    ]
    passed = all(criterion.verdict == "pass" for answer in answers for criterion in answer)
    files = [shipped(results, _network(results, row), folder) for row in rows]
    if junit:
        _write_junit(junit, rows, answers)
    if as_json:
        found = [
            {
                "target": row.target,
                "strategy": row.strategy,
                "seeds": row.seeds,
                "run": _network(results, row),
                "criteria": [asdict(criterion) for criterion in answer],
            }
            for row, answer in zip(rows, answers, strict=True)
        ]
        typer.echo(json.dumps({"passed": passed, "answers": found}, indent=2, ensure_ascii=False))
    else:
        for row, answer, file in zip(rows, answers, files, strict=True):
            out_console.print(f"{row.strategy}, {row.target}", style="bold")
            for criterion in answer:
                out_console.print(f"  {_said(results, row, criterion)}", soft_wrap=True)
            out_console.print(f"  {file}", soft_wrap=True)
        if any(len(row.seeds) == 1 for row in rows):
            out_console.print("One seed: how far another training would land is not counted.")
        out_console.print("ship it" if passed else "do not ship it", style="bold")
    if not passed:
        raise typer.Exit(1)


def _said(results: Results, row: Result, criterion: Criterion) -> str:
    """Say a condition and its answer in a line."""
    if criterion.side is None:
        return (
            f"{criterion.verdict.upper()}  {criterion.about}: {criterion.measured:.2f} times the old "
            f"network's; at most {criterion.limit:g} asked for"
        )
    name = results.source.name if criterion.side == "source" else row.target
    way, sign = ("at least", "+") if criterion.at_least else ("at most", "")
    unit = "points" if criterion.at_least else "% of the images"
    text = (
        f"{criterion.verdict.upper()}  {name}, {criterion.about}: {criterion.measured:{sign}.1f} {unit} "
        f"measured, {way} {criterion.bound:{sign}.1f} shown; {way} {criterion.limit:{sign}g} asked for"
    )
    return text if criterion.verdict != "not proven" else f"{text} ({_missing(criterion)})"


def _missing(criterion: Criterion) -> str:
    """Say how many test images would prove a condition that is not proven."""
    if criterion.needed is None:
        return "no number of test images proves what is just at the limit"
    text = f"not enough test images to prove it: {criterion.images}"
    needed = f"you need about {criterion.needed:,}"
    if criterion.people and criterion.images:
        text += f", people: {criterion.people}"
        needed += (
            f" of {math.ceil(criterion.needed * criterion.people / criterion.images):,} people"
        )
    return f"{text}; {needed}"


def _to_ship(results: Results, strategy: str | None, target: str | None) -> list[Result]:
    """Return the rows that a gate is about: of each target, the recommended strategy or the one named."""
    targets = [choice.target for choice in results.recommendations]
    if target is not None and target not in targets:
        raise CrossferError(f"--target {target}: choose among {', '.join(targets)}")
    names = [known.name for known in results.strategies]
    if strategy is not None and strategy not in names:
        raise CrossferError(f"--strategy {strategy}: choose among {', '.join(names)}")
    rows = []
    for choice in results.recommendations:
        if target in (None, choice.target):
            wanted = (choice.target, strategy or choice.strategy)
            found = [row for row in results.summary if (row.target, row.strategy) == wanted]
            if not found:
                raise CrossferError(f"{wanted[1]}, {choice.target}: every run failed")
            rows.append(max(found, key=lambda row: row.fraction or 0))
    return rows


def _network(results: Results, row: Result) -> str:
    """Return the key of the run whose network would be shipped."""
    from crossfer.evaluation.decision import to_ship

    return to_ship(row, results.results).runs[0]


def _size_ratio(results: Results, row: Result) -> float:
    """Return the parameters of a row's network, divided by the baseline's."""
    from crossfer.terms import BL

    old = next(one for one in results.results if one.strategy == BL and one.target == row.target)
    before, after = (results.run(one.runs[0]).parameters for one in (old, row))
    return after / before


def _write_junit(file: Path, rows: list[Result], answers: list[list[Criterion]]) -> None:
    """Write every condition as a test case; one that fails or is not proven is a failure."""
    from xml.etree import ElementTree

    from crossfer.files import write_bytes

    suite = ElementTree.Element("testsuite", name="crossfer gate")
    bad = 0
    for row, answer in zip(rows, answers, strict=True):
        for one in answer:
            name = ", ".join(filter(None, [one.side, one.about]))
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"{row.target}.{row.strategy}", name=name
            )
            if one.verdict != "pass":
                bad += 1
                shown = (
                    f"{one.measured:.2f} measured, {one.bound:.2f} shown, {one.limit:g} asked for"
                )
                ElementTree.SubElement(
                    case, "failure", message=f"{one.verdict}: {shown}", type=one.verdict
                )
    suite.set("tests", str(sum(map(len, answers))))
    suite.set("failures", str(bad))
    write_bytes(file, ElementTree.tostring(suite, "utf-8", xml_declaration=True))

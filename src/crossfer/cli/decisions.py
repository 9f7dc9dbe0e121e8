"""Commands for decisions: which strategy to use, and whether its network may be shipped."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from crossfer.cli.application import app, out_console
from crossfer.cli.options import past_data_of, seconds_of
from crossfer.errors import CrossferError

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

    from crossfer.evaluation.decision import Constraints
    from crossfer.evaluation.decision import recommend as choose
    from crossfer.experiment import load_results

    results = load_results(folder)
    kind, exemplars = past_data_of(past_data)
    limits = Constraints(max_source_drop, kind, exemplars, seconds_of(budget))
    choices = choose(results["summary"], results["strategies"], limits)
    if as_json:
        typer.echo(json.dumps(choices, indent=2, ensure_ascii=False))
        return
    for choice in choices:
        _say_choice(results, choice)


def _say_choice(results: dict[str, Any], choice: dict[str, Any]) -> None:
    """Print a choice, why, and all that there was to choose from."""
    from crossfer.evaluation.decision import comparable
    from crossfer.report import explain

    out_console.print(f"\n{choice['target']}", style="bold")
    for sentence in explain(results, choice):
        out_console.print(sentence)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("\nstrategy", no_wrap=True)
    for column in ("validation\nsource", "\ntarget", "test\nsource", "\ntarget", "\nseconds"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for row in comparable(results["summary"], choice["target"]):
        name = row["strategy"]
        remark = "front" if name in choice["front"] else ""
        if name in choice["ruled_out"]:
            remark = "ruled out"
        if name == choice["strategy"]:
            remark = "choice"
        table.add_row(
            name,
            *(f"{row[f'{side}_validation']['accuracy']:.1f}" for side in ("source", "target")),
            *(
                "{accuracy:.1f} ({0:.0f}–{1:.0f})".format(*test["interval"], **test)
                for test in (row["source_test"], row["target_test"])
            ),
            f"{row['seconds']:.0f}",
            remark,
        )
    out_console.print(table)
    for name, reasons in choice["ruled_out"].items():
        out_console.print(f"Ruled out: {name} {'; '.join(reasons)}.")


@command()
def gate(
    folder: Annotated[Path, typer.Argument(help="The folder of a finished experiment.")],
    max_source_drop: Annotated[
        float, typer.Option(min=0, help="Shown to lose at most so many points on the source.")
    ] = 1.0,
    min_target_gain: Annotated[
        float, typer.Option(help="Shown to gain at least so many points on the target.")
    ] = 0.0,
    confidence: Annotated[
        float, typer.Option(help="One-sided: 0.8, 0.9, 0.95, 0.975, 0.99, 0.995 or 0.999.")
    ] = 0.95,
    strategy: Annotated[
        str | None, typer.Option(help="The strategy to ship, instead of the recommended one.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Only this target.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Decide whether an update may be shipped: exit status 0 if its test figures prove it, 1 if not.

    What counts is not the measured change but what it exceeds with the confidence asked for: the lower
    bound of the paired bootstrap over test images, people and seeds.  Few test images prove little.

    Example:  crossfer gate runs/fer2013-ck48 --max-source-drop 1 --min-target-gain 5 --confidence 0.95
    """
    import json
    from dataclasses import asdict

    from crossfer.evaluation.decision import gate as ask
    from crossfer.evaluation.intervals import CONFIDENCES
    from crossfer.experiment import load_results

    if confidence not in CONFIDENCES:
        known = ", ".join(f"{level:g}" for level in CONFIDENCES)
        raise CrossferError(f"--confidence {confidence:g}: choose among {known}")
    results = load_results(folder)
    rows = _to_ship(results, strategy, target)
    answers = [ask(row, max_source_drop, min_target_gain, confidence) for row in rows]
    passed = all(criterion.passed for answer in answers for criterion in answer)
    source = next(d["name"] for d in results["datasets"] if d["role"] == "source")
    if as_json:
        found = [
            {"target": row["target"], "strategy": row["strategy"], "seeds": row["seeds"]}
            | {"criteria": [asdict(c) | {"passed": c.passed} for c in answer]}
            for row, answer in zip(rows, answers, strict=True)
        ]
        typer.echo(json.dumps({"passed": passed, "answers": found}, indent=2, ensure_ascii=False))
    else:
        for row, answer in zip(rows, answers, strict=True):
            out_console.print(f"{row['strategy']}, {row['target']}", style="bold")
            for criterion in answer:
                name = source if criterion.side == "source" else row["target"]
                verdict = "passed" if criterion.passed else "FAILED"
                only = (
                    ", though the estimate would do: more test images or seeds may show it"
                    if criterion.measured >= criterion.asked and not criterion.passed
                    else ""
                )
                out_console.print(
                    f"  {verdict}  {name}: {criterion.measured:+.1f} points measured, at least "
                    f"{criterion.bound:+.1f} with {100 * confidence:g} % confidence; {criterion.asked:+g} "
                    f"asked for{only}",
                    soft_wrap=True,
                )
        if any(len(row["seeds"]) == 1 for row in rows):
            out_console.print("One seed: how far another training would land is not counted.")
        out_console.print("ship it" if passed else "do not ship it", style="bold")
    if not passed:
        raise typer.Exit(1)


def _to_ship(
    results: dict[str, Any], strategy: str | None, target: str | None
) -> list[dict[str, Any]]:
    """Return the rows that a gate is about: of each target, the recommended strategy or the one named."""
    targets = [choice["target"] for choice in results["recommendations"]]
    if target is not None and target not in targets:
        raise CrossferError(f"--target {target}: choose among {', '.join(targets)}")
    names = [known["name"] for known in results["strategies"]]
    if strategy is not None and strategy not in names:
        raise CrossferError(f"--strategy {strategy}: choose among {', '.join(names)}")
    rows = []
    for choice in results["recommendations"]:
        if target in (None, choice["target"]):
            wanted = strategy or choice["strategy"]
            found = [
                row
                for row in results["summary"]
                if (row["target"], row["strategy"]) == (choice["target"], wanted)
            ]
            if not found:
                raise CrossferError(f"{wanted}, {choice['target']}: every run failed")
            rows.append(max(found, key=lambda row: row["fraction"] or 0))
    return rows

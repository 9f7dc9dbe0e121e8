"""Commands for decisions: which strategy to use, and whether its network may be shipped."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from crossfer.cli.application import app, out_console
from crossfer.cli.options import JsonOption, check_finite, check_outputs, past_data_of, seconds_of
from crossfer.cli.output import say, say_json
from crossfer.errors import CrossferError
from crossfer.files import write_bytes
from crossfer.terms import SIDES

if TYPE_CHECKING:
    from crossfer.evaluation.rows import Recommendation, Results

command = partial(app.command, rich_help_panel="Decisions")


@command()
def recommend(
    folder: Annotated[Path, typer.Argument(help="The folder of a finished experiment.")],
    max_source_drop: Annotated[
        float | None,
        typer.Option(
            min=0, help="Maximum loss on the source in points; among the rest, the target decides."
        ),
    ] = None,
    past_data: Annotated[
        str,
        typer.Option(
            help=(
                "Source data that you still have: none, statistics, all, or a number of images per "
                "class."
            )
        ),
    ] = "all",
    budget: Annotated[
        str | None,
        typer.Option(help="Maximum training time after the baseline, e.g. 90s, 10min, 2h."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Recommend a strategy within your limits, and show its trade-offs.

    Selected on validation data: the highest target accuracy among strategies that lose at most one point on
    the source (or --max-source-drop); if there is none, the highest mean of both. Test results are shown
    beside it.

    Example:  crossfer recommend runs/fer2013-ck48 --max-source-drop 1 --past-data none --budget 10min
    """
    from crossfer.evaluation.decision import Constraints
    from crossfer.evaluation.decision import recommend as choose
    from crossfer.experiment import load_results
    from crossfer.report import averaged_over

    check_finite({"--max-source-drop": max_source_drop})
    results = load_results(folder)
    kind, exemplars = past_data_of(past_data)
    limits = Constraints(max_source_drop, kind, exemplars, seconds_of(budget))
    choices = choose(
        results.results, results.summary, results.strategies, results.validation, limits
    )
    if as_json:
        found = [asdict(c) | {"folder": str(folder / results.run(c.run).folder)} for c in choices]
        say_json(found)
        return
    for choice in choices:
        _say_choice(results, choice, folder)
    if note := averaged_over(results):
        say(note)


def _say_choice(results: Results, choice: Recommendation, folder: Path) -> None:
    """Print a choice, why, all that there was to choose from, and where the network lies."""
    from crossfer.evaluation.decision import comparable
    from crossfer.report import explain, shipped

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
        remark = "Pareto front" if name in choice.front else ""
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
    if network := shipped(results, choice.run, folder):
        say(network)


@command()
def gate(
    what: Annotated[
        Path,
        typer.Argument(
            help="The folder of a finished experiment, or what `crossfer compare --json` wrote."
        ),
    ],
    max_source_drop: Annotated[
        float | None,
        typer.Option(
            "--max-source-drop",
            "--max-drop",
            min=0,
            help=(
                "Proven to lose at most this many points on the source (default 1); for a "
                "comparison, on every dataset."
            ),
            show_default=False,
        ),
    ] = None,
    min_target_gain: Annotated[
        float | None,
        typer.Option(
            help=(
                "Proven to gain at least this many points on the target (default 0); for a "
                "comparison, on the dataset named by --target."
            ),
            show_default=False,
        ),
    ] = None,
    max_class_drop: Annotated[
        float | None,
        typer.Option(min=0, help="Proven to lose at most this many points of recall in any class."),
    ] = None,
    max_negative_flips: Annotated[
        float | None,
        typer.Option(min=0, help="At most this many negative flips among 100 test images."),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help=(
                "Also for each group of this column of the sample tables. Repeatable. `crossfer "
                "compare` needs the same option."
            )
        ),
    ] = None,
    max_size_ratio: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Maximum ratio of the number of parameters; for a comparison, of the file size.",
        ),
    ] = None,
    max_latency_ratio: Annotated[
        float | None,
        typer.Option(min=0, help="For a comparison: maximum ratio of the latency for one face."),
    ] = None,
    confidence: Annotated[
        float,
        typer.Option(help="One-sided confidence for all conditions together, between 0.5 and 1."),
    ] = 0.95,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="For an experiment: the strategy to ship, instead of the recommended one."
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Only this target; for a comparison, the dataset to gain on.")
    ] = None,
    as_json: JsonOption = False,
    junit: Annotated[
        Path | None,
        typer.Option(help="Write the conditions as a JUnit XML file for continuous integration."),
    ] = None,
) -> None:
    """Decide whether an update may be shipped: exit status 0 if all conditions are proven, otherwise 1.

    It is 1 as well where there is no update to ship, and 2 where an input cannot be read. A condition is
    proven if a one-sided confidence bound keeps its limit: paired bootstrap over test images, subjects and
    seeds, with Holm's correction for all conditions. If there are too few test images, the output says about
    how many are needed.

    Example:  crossfer gate runs/fer2013-ck48 --max-source-drop 1 --min-target-gain 5 --max-class-drop 10

    Example:  crossfer gate comparison.json --max-drop 1 --max-class-drop 10 --max-latency-ratio 1.2
    """
    from crossfer.evaluation.gate import Limits
    from crossfer.experiment import load_results
    from crossfer.experiment.finished import Finished
    from crossfer.report import gated

    if not 0.5 <= confidence < 1:
        raise CrossferError(f"--confidence {confidence:g}: must be between 0.5 and 1")
    check_finite(
        {
            "--max-source-drop": max_source_drop,
            "--min-target-gain": min_target_gain,
            "--max-class-drop": max_class_drop,
            "--max-negative-flips": max_negative_flips,
            "--max-size-ratio": max_size_ratio,
            "--max-latency-ratio": max_latency_ratio,
        }
    )
    own = [file for file in what.glob("*") if file.suffix != ".xml"]
    check_outputs({"--junit": junit}, [what] if what.is_file() else own)
    limits = Limits(
        1.0 if max_source_drop is None else max_source_drop,
        min_target_gain or 0.0,
        max_class_drop,
        max_negative_flips,
        max_size_ratio,
        max_latency_ratio,
        confidence,
    )
    if not what.exists():
        raise CrossferError(f"{what}: no such file or folder; name an experiment or a comparison")
    if what.is_file():
        if strategy is not None:
            raise CrossferError("--strategy: only for an experiment; leave it out for a comparison")
        if min_target_gain is not None and target is None:
            raise CrossferError("--min-target-gain: name the dataset with --target")
        asked = gated.of_comparison(what, limits, target, by or [], max_source_drop is not None)
    else:
        if max_latency_ratio is not None:
            raise CrossferError(
                "--max-latency-ratio: latency is not measured in an experiment; compare two networks with "
                "`crossfer compare … --json FILE`, and name that file"
            )
        asked = gated.of_experiment(
            Finished(what, load_results(what)), limits, strategy, target, by or []
        )
    passed = all(decision.passed for decision in asked)
    if as_json:
        say_json({"passed": passed, "answers": [decision.as_json() for decision in asked]})
    else:
        for decision in asked:
            say(decision.title, "bold")
            for line in decision.in_words():
                say(f"  {line}")
        say("ship it" if passed else "do not ship it", "bold")
    if junit:
        junit.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(junit, gated.junit(asked))
    if not passed:
        raise typer.Exit(1)

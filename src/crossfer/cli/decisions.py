"""Commands for decisions: which strategy to use, and whether its network may be shipped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from crossfer.cli.application import app, out_console
from crossfer.cli.options import JsonOption, check_finite, check_outputs, past_data_of, seconds_of
from crossfer.cli.output import say, say_json
from crossfer.errors import CrossferError
from crossfer.terms import BL, SIDES

if TYPE_CHECKING:
    from crossfer.evaluation.gate import Criterion, Limits
    from crossfer.evaluation.rows import Recommendation, Result, Results

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
    say(shipped(results, choice.run, folder))


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
    check_outputs({"--junit": junit}, [what] if what.is_file() else [*what.glob("*.json")])
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
        answers = _of_comparison(what, limits, target, by or [], max_source_drop is not None)
    else:
        if max_latency_ratio is not None:
            raise CrossferError(
                "--max-latency-ratio: latency is not measured in an experiment; compare two networks with "
                "`crossfer compare … --json FILE`, and name that file"
            )
        answers = _of_experiment(what, limits, strategy, target, by or [])
    passed = all(answer.passed for answer in answers)
    if as_json:
        found = [answer.as_json() for answer in answers]
        say_json({"passed": passed, "answers": found})
    else:
        for answer in answers:
            say(answer.title, "bold")
            for criterion in answer.criteria:
                say(f"  {_said(answer.names, criterion)}")
            for remark in answer.remarks:
                say(f"  {remark}")
        if any(answer.single for answer in answers):
            say("One seed: the bounds do not cover another training.")
        say("ship it" if passed else "do not ship it", "bold")
    if junit:
        junit.parent.mkdir(parents=True, exist_ok=True)
        _write_junit(junit, answers)
    if not passed:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Answer:
    """What the gate says of one update.

    Parameters
    ----------
    title, suite
        What it is called, for people and for CI.
    facts
        What JSON says beside the criteria.
    criteria
        Each condition with its answer; none where there is no update to ship.
    names
        What the test sets are called, by `Criterion.side`.
    remarks
        What else to say.
    single
        Whether nothing is known about other trainings that could be.
    """

    title: str
    suite: str
    facts: Mapping[str, Any]
    criteria: Sequence[Criterion]
    names: Mapping[str, str]
    remarks: Sequence[str]
    single: bool = False

    @property
    def passed(self) -> bool:
        """Whether there is an update, and all conditions are proven."""
        return bool(self.criteria) and all(one.verdict == "pass" for one in self.criteria)

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**self.facts, "criteria": [asdict(criterion) for criterion in self.criteria]}


def _of_experiment(
    folder: Path, limits: Limits, strategy: str | None, target: str | None, by: list[str]
) -> list[_Answer]:
    from crossfer.evaluation.gate import gate as ask
    from crossfer.experiment import load_results
    from crossfer.experiment.finished import Finished
    from crossfer.report import fallen, shipped

    results = load_results(folder)
    finished = Finished(folder, results)
    rows = _to_ship(results, strategy, target)
    nothing = {row.target: _no_update(results, row) for row in rows}
    evidence = finished.evidence([row for row in rows if not nothing[row.target]])
    found = []
    for row in rows:
        facts = {"target": row.target, "strategy": row.strategy, "seeds": row.seeds}
        title, suite = f"{row.strategy}, {row.target}", f"{row.target}.{row.strategy}"
        if why := nothing[row.target]:
            found.append(_Answer(title, suite, {**facts, "run": None}, [], {}, [why]))
            continue
        groups = {column: finished.groups(row, column) for column in by}
        run = _network(results, row)
        found.append(
            _Answer(
                title,
                suite,
                {**facts, "run": run},
                ask(row, evidence, limits, results.classes, groups, _size_ratio(results, row)),
                {"source": results.source.name, "target": row.target},
                [*fallen(results, row), shipped(results, run, folder)],
                single=len(row.seeds) == 1,
            )
        )
    return found


def _no_update(results: Results, row: Result) -> str:
    """Say why there is no update to decide on; empty if there is one."""
    from crossfer.report import no_comparison

    if row.strategy == BL:
        return f"{BL}, the old network, is recommended: there is no update to ship"
    return no_comparison(results, row)


def _of_comparison(
    file: Path, limits: Limits, target: str | None, by: Sequence[str], may_drop: bool
) -> list[_Answer]:
    from crossfer.deploy.compare import read
    from crossfer.evaluation.comparing import asked_of
    from crossfer.evaluation.gate import ask
    from crossfer.report.compared import warnings

    found = read(file)
    names = [one.name for one in found.datasets]
    if target is not None and target not in names:
        raise CrossferError(f"--target {target}: choose among {', '.join(names)}")
    if may_drop and names == [target]:
        raise CrossferError(
            f"--max-drop: {target} is the only dataset, and --target asks a gain of it; leave one of the "
            "two out"
        )
    known = sorted({column for one in found.datasets for column in one.evidence.groups})
    for column in by:
        if column not in known:
            raise CrossferError(
                f"--by {column}: {file} has results by {', '.join(known) or 'no column'}; compare "
                f"again with --by {column}"
            )
    least = {name: limits.least("target" if name == target else "source") for name in names}
    times = found.latency
    criteria = ask(
        asked_of(found, least, by),
        limits,
        found.classes,
        found.size_ratio,
        (times.old, times.new),
    )
    return [
        _Answer(
            f"{found.new.name} instead of {found.old.name}",
            "compare",
            {"old": found.old.name, "new": found.new.name},
            criteria,
            {name: name for name in names},
            [f"WARNING: {w}" for one in found.datasets for w in warnings(one, found.classes)],
        )
    ]


def _said(names: Mapping[str, str], criterion: Criterion) -> str:
    """Say a condition and its answer in a line."""
    if criterion.side is None:
        shown = "" if criterion.p is None else f", proven at most {criterion.bound:.2f}"
        text = (
            f"{criterion.verdict.upper()}  {criterion.about}: {criterion.measured:.2f} times the old "
            f"network's{shown}, required at most {criterion.limit:g}"
        )
    else:
        way, sign = ("at least", "+") if criterion.at_least else ("at most", "")
        unit = "points" if criterion.at_least else "% of the images"
        text = (
            f"{criterion.verdict.upper()}  {names[criterion.side]}, {criterion.about}: "
            f"{criterion.measured:{sign}.1f} {unit} measured, proven {way} {criterion.bound:{sign}.1f}, "
            f"required {way} {criterion.limit:{sign}g}"
        )
    return text if criterion.verdict != "not proven" else f"{text} ({_missing(criterion)})"


def _missing(criterion: Criterion) -> str:
    """Say how many test images would prove a condition that is not proven."""
    if criterion.needed is None and criterion.measured == criterion.limit:
        return "no number of test images can prove a value exactly at the limit"
    if criterion.needed is None:
        return "the trainings differ too much for any number of test images; train with more seeds"
    if criterion.side is None:
        return (
            f"not enough measurements to prove it: {criterion.images}; you need about {criterion.needed:,}: "
            "compare again with --rounds"
        )
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
            if strategy == BL:
                raise CrossferError(
                    f"--strategy {BL}: is the old network itself, so there is no update to decide on; name "
                    "another"
                )
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
    old = next(one for one in results.results if one.strategy == BL and one.target == row.target)
    before, after = (results.run(one.runs[0]).parameters for one in (old, row))
    return after / before


def _write_junit(file: Path, answers: Sequence[_Answer]) -> None:
    """Write every condition as a test case; one that fails or is not proven is a failure."""
    from xml.etree import ElementTree

    from crossfer.files import write_bytes

    suite = ElementTree.Element("testsuite", name="crossfer gate")
    bad = 0
    for answer in answers:
        if not answer.criteria:
            bad += 1
            case = ElementTree.SubElement(
                suite, "testcase", classname=answer.suite, name="an update"
            )
            ElementTree.SubElement(case, "failure", message=answer.remarks[0], type="no update")
        for one in answer.criteria:
            name = ", ".join(filter(None, [one.side, one.about]))
            case = ElementTree.SubElement(suite, "testcase", classname=answer.suite, name=name)
            if one.verdict != "pass":
                bad += 1
                shown = (
                    f"{one.measured:.2f} measured, {one.bound:.2f} proven, {one.limit:g} required"
                )
                ElementTree.SubElement(
                    case, "failure", message=f"{one.verdict}: {shown}", type=one.verdict
                )
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(bad))
    write_bytes(file, ElementTree.tostring(suite, "utf-8", xml_declaration=True))

"""The gate: whether an update may be released, asked of an experiment or of a comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from crossfer.deploy.compare import read
from crossfer.errors import CrossferError
from crossfer.evaluation.comparing import Compared, asked_of
from crossfer.evaluation.decision import to_ship
from crossfer.evaluation.gate import Criterion, Limits, ask, gate, without_column
from crossfer.evaluation.rows import Result, Results
from crossfer.report.advice import shipped
from crossfer.report.compared import left_out, warnings
from crossfer.report.verdict import fallen, no_comparison
from crossfer.report.view import View
from crossfer.report.words import STAND_IN
from crossfer.terms import BL, SIDES

if TYPE_CHECKING:
    from crossfer.experiment.finished import Finished

ONE_SEED = "One seed: the bounds do not cover another training."


@dataclass(frozen=True)
class Decision:
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
    """

    title: str
    suite: str
    facts: Mapping[str, Any]
    criteria: Sequence[Criterion]
    names: Mapping[str, str]
    remarks: Sequence[str]

    @property
    def passed(self) -> bool:
        """Whether there is an update, and all conditions are proven."""
        return bool(self.criteria) and all(one.verdict == "pass" for one in self.criteria)

    def in_words(self) -> list[str]:
        """Return a line for each condition, and the remarks."""
        return [*(_said(self.names, criterion) for criterion in self.criteria), *self.remarks]

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        criteria = [asdict(criterion) for criterion in self.criteria]
        return {**self.facts, "criteria": criteria, "remarks": list(self.remarks)}


def of_experiment(
    finished: Finished,
    limits: Limits,
    strategy: str | None = None,
    target: str | None = None,
    by: Sequence[str] = (),
) -> list[Decision]:
    """Decide whether networks of a finished experiment may replace its baseline.

    Parameters
    ----------
    finished
        The experiment.
    limits
        What must be proven.
    strategy
        The strategy; by default the one that is recommended for each target.
    target
        Only this target.
    by
        Columns of the sample table; in each of their groups the limits must be kept, too.

    Raises
    ------
    CrossferError
        If one of these is not in the experiment, or its predictions cannot be read.
    """
    results, view = finished.results, View(finished.results)
    rows = _to_ship(results, strategy, target)
    nothing = {row.target: _no_update(view, row) for row in rows}
    evidence = finished.evidence([row for row in rows if not nothing[row.target]])
    found = []
    for row in rows:
        facts = {"target": row.target, "strategy": row.strategy, "seeds": row.seeds}
        title, suite = f"{row.strategy}, {row.target}", f"{row.target}.{row.strategy}"
        if why := nothing[row.target]:
            found.append(Decision(title, suite, {**facts, "run": None, "why": why}, [], {}, [why]))
            continue
        groups = {column: finished.groups(row, column) for column in by}
        names: dict[str, str] = {"source": results.source.name, "target": row.target}
        run = _network(results, row)
        found.append(
            Decision(
                title,
                suite,
                {**facts, "run": run},
                gate(row, evidence, limits, results.classes, groups, _size_ratio(results, row)),
                names,
                [
                    *fallen(view, row),
                    *(
                        f"{names[side]}: {without_column(column)}."
                        for column, values in groups.items()
                        for side in SIDES
                        if values[side] is None
                    ),
                    *([ONE_SEED] if len(row.seeds) == 1 else []),
                    *([STAND_IN] if view.stand_in else []),
                    shipped(view, run, str(finished.out)),
                ],
            )
        )
    return found


def of_comparison(
    file: Path,
    limits: Limits,
    target: str | None = None,
    by: Sequence[str] = (),
    may_drop: bool = False,
) -> list[Decision]:
    """Decide whether the new classifier of a comparison may replace the old one.

    Parameters
    ----------
    file
        What ``crossfer compare --json`` wrote.
    limits
        What must be proven.
    target
        The dataset of which a gain is asked; of all others, no more than the allowed loss.
    by
        Columns by which it was compared; in each of their groups the limits must be kept, too.
    may_drop
        Whether the user named an allowed loss, which needs a dataset that it is about.

    Raises
    ------
    CrossferError
        If the file is no comparison, or not one of test images, or one of these is not in it.
    """
    found = read(file)
    for one in found.datasets:
        if one.split != "test":
            raise CrossferError(
                f"{file}: compares {one.split} images of {one.name}; compare on the test split"
            )
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
        Decision(
            f"{found.new.name} instead of {found.old.name}",
            "compare",
            {"old": found.old.name, "new": found.new.name},
            criteria,
            {name: name for name in names},
            _remarks(found),
        )
    ]


def junit(decisions: Sequence[Decision]) -> bytes:
    """Return every condition as a test case in JUnit's XML; one that fails or is not proven is a failure.

    The remarks are the suite's output.
    """
    suite = ElementTree.Element("testsuite", name="crossfer gate")
    bad = 0
    for decision in decisions:
        if not decision.criteria:
            bad += 1
            case = ElementTree.SubElement(
                suite, "testcase", classname=decision.suite, name="an update"
            )
            ElementTree.SubElement(case, "failure", message=decision.remarks[0], type="no update")
        for one in decision.criteria:
            name = ", ".join(filter(None, [one.side, one.about]))
            case = ElementTree.SubElement(suite, "testcase", classname=decision.suite, name=name)
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
    said = [f"{decision.title}: {remark}" for decision in decisions for remark in decision.remarks]
    if said:
        ElementTree.SubElement(suite, "system-out").text = "\n".join(said)
    return bytes(ElementTree.tostring(suite, "utf-8", xml_declaration=True))


def _remarks(found: Compared) -> list[str]:
    """Say what else a comparison found, most important first."""
    return [
        *(f"WARNING: {text}" for one in found.datasets for text in warnings(one, found.classes)),
        *(f"{note}." for note in found.notes),
        *(left_out(one) for one in found.datasets if one.left_out),
        *([STAND_IN] if any(one.stand_in for one in found.datasets) else []),
    ]


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
                raise CrossferError(
                    f"{wanted[1]}, {choice.target}: not compared, since a run failed; run the "
                    "experiment again"
                )
            rows.append(max(found, key=lambda row: row.fraction or 0))
    return rows


def _no_update(view: View, row: Result) -> str:
    """Say why there is no update to decide on; empty if there is one."""
    if row.strategy == BL:
        return f"{BL}, the old network, is recommended: there is no update to ship"
    return no_comparison(view, row)


def _network(results: Results, row: Result) -> str:
    """Return the key of the run whose network would be shipped."""
    return to_ship(row, results.results).runs[0]


def _size_ratio(results: Results, row: Result) -> float:
    """Return the parameters of a row's network, divided by the baseline's."""
    old = next(one for one in results.results if one.strategy == BL and one.target == row.target)
    before, after = (results.run(one.runs[0]).parameters for one in (old, row))
    return after / before


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
    if criterion.people == 1:
        return (
            "all images are of one person, which proves nothing about others; test on more people"
        )
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

"""The command line: a thin face over the public API."""

from __future__ import annotations

import errno
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from crossfer.errors import CrossferError

if TYPE_CHECKING:
    from crossfer.strategies import Strategy
    from crossfer.training import Recipe

Numbers = TypeVar("Numbers", bound=tuple[float, ...])

out_console = Console(highlight=False, markup=False)
error_console = Console(stderr=True, highlight=False)


class _Stoppable(TyperGroup):
    """All commands; stopped by Ctrl-C, each says how to go on."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            error_console.print("stopped; the same command goes on where it stopped")
            raise typer.Exit(130) from None


app = typer.Typer(
    name="crossfer",
    cls=_Stoppable,
    help="Update a facial-expression model on new faces without making it forget, "
    "with honest numbers.\n\nStart with:  [bold]crossfer demo[/]",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
) -> None:
    """Run the whole study on drawn stand-in faces: no download, a few minutes, a report at the end.

    Example:  crossfer demo --out demo
    """
    from crossfer.demo import run_demo
    from crossfer.experiment import load_results
    from crossfer.progress import Shown

    out_console.print("Faces drawn by code stand in for FER2013, JAFFE, TFEID and MUG.")
    with Shown(out_console) as shown:
        report_file = run_demo(out, shown, shown.drawing)
    results = load_results(report_file.parent)
    _say_answer(results)
    out_console.print(f"\nReport: {report_file.resolve()}", soft_wrap=True)
    _say_failures(results)


@app.command()
def prepare(
    path: Annotated[Path, typer.Argument(help="The files as the dataset's authors ship them.")],
    out: Annotated[Path, typer.Option(help="Folder to make: the prepared dataset.")],
    reader: Annotated[
        str | None, typer.Option("--as", help="Which dataset it is, instead of finding out.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call it in tables.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="THEIRS=OURS maps a class; THEIRS= leaves it out. Repeat at will."),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="The classes it tells apart, e.g. angry,happy,neutral; by default those that occur."
        ),
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="Regular expression that finds the subject in a path.")
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--everything", help="Also what is left out by default, as turned heads."),
    ] = False,
    faces: Annotated[
        Literal["auto", "find", "cropped"],
        typer.Option(
            help="find aligns each face on its eyes; cropped takes pictures as the faces they are."
        ),
    ] = "auto",
    no_face: Annotated[
        Literal["keep", "drop", "refuse"],
        typer.Option(help="Where no face is found: keep the centre, drop it, or refuse them all."),
    ] = "keep",
    side: Annotated[int, typer.Option(help="Side of the prepared faces in pixels.")] = 48,
    colour: Annotated[bool, typer.Option("--colour", help="Keep colours.")] = False,
    eyes: Annotated[
        str | None,
        typer.Option(help="Distance and height of the eyes, as shares of the side."),
    ] = None,
    crop: Annotated[
        float | None,
        typer.Option(help="Where no face is found: the centred square, as a share of the picture."),
    ] = None,
    sizes: Annotated[
        str | None, typer.Option(help="Training, validation and test, e.g. 70,10,20.")
    ] = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Reach these sizes to the image, at the price of subjects."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace an older prepared dataset.")
    ] = False,
) -> None:
    """Turn raw files into a prepared dataset: faces of 48×48, a sample table and a card.

    The layout is recognised; faces in photographs are found and aligned on the eyes.  Archives (.zip,
    .tar.gz, …) are read as they are.  Interrupted, the same command goes on where it stopped.

    Example:  crossfer prepare raw/fer2013.csv --out data/fer2013

    A folder per class, with class names of its own and the subject in front of every file's name:

    crossfer prepare raw/mine --out data/mine --label joyful=happy --subject '/([^_]+)_'
    """
    from crossfer.datasets import Preparation
    from crossfer.datasets import prepare as prepare_dataset
    from crossfer.progress import Shown, oddities

    how = Preparation(
        reader=reader,
        labels=_label_map(label or []),
        classes=[name.strip() for name in classes.split(",")] if classes else None,
        subject=subject,
        everything=everything,
        faces=faces,
        no_face=no_face,
        side=side,
        channels=3 if colour else 1,
        eyes=_numbers("--eyes", eyes, (0.4, 0.4)) or Preparation.eyes,
        crop=crop,
        sizes=_numbers("--sizes", sizes, (70, 10, 20)),
        exact=exact,
        seed=seed,
    )
    with Shown(out_console) as shown:
        dataset = prepare_dataset(
            path,
            out,
            how,
            name=name,
            replace=replace,
            progress=lambda done, total: shown.preparing(path.name, done, total),
        )
    card = dataset.card
    out_console.print(f"{card['title']}: {card['recognised']}", soft_wrap=True)
    table = Table("split", *dataset.counts()["training"], "all", box=box.SIMPLE_HEAD)
    for split, counts in dataset.counts().items():
        numbers = [f"{count:,}" for count in (*counts.values(), sum(counts.values()))]
        table.add_row(split, *numbers)
    out_console.print(table)
    for line in oddities(dataset):
        out_console.print(line, soft_wrap=True)
    out_console.print(f"prepared {card['images']:,} faces in {out}", soft_wrap=True)
    out_console.print(f"see them:  crossfer look {out}", soft_wrap=True)


@app.command()
def look(
    dataset: Annotated[Path, typer.Argument(help="A prepared dataset.")],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file; by default look.html in the dataset.")
    ] = None,
    per_class: Annotated[int, typer.Option(min=1, help="Faces of each class.")] = 40,
    split: Annotated[
        Literal["training", "validation", "test"] | None, typer.Option(help="Only this split.")
    ] = None,
    doubtful: Annotated[bool, typer.Option("--doubtful", help="Only the doubtful ones.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Another seed shows others.")] = 0,
) -> None:
    """Show prepared faces, class by class, the doubtful ones marked: a local page for your eyes only.

    Example:  crossfer look data/jaffe
    """
    from crossfer.datasets import open_dataset, write_look

    page = write_look(
        open_dataset(dataset),
        out,
        per_class=per_class,
        split=split,
        only_doubtful=doubtful,
        seed=seed,
    )
    out_console.print(str(page.resolve()), soft_wrap=True)


@app.command()
def check(
    datasets: Annotated[list[Path], typer.Argument(help="Prepared datasets.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit status 1 if a split leaks into another.")
    ] = False,
) -> None:
    """Look for leakage: faces that stand more than once, and subjects in more than one split.

    A copy is exact (the same pixels) or near (the same photograph: other light, compression, a slight
    shift, its mirror image).  Copies in training and test make test accuracy too good.

    Example:  crossfer check data/fer2013 data/ck48
    """
    import json

    from crossfer.datasets import open_dataset
    from crossfer.datasets.duplicates import group_copies, leakage, leaks
    from crossfer.progress import Shown

    opened = [open_dataset(folder) for folder in datasets]
    with Shown(error_console) as shown:
        groups = group_copies([dataset.images for dataset in opened], shown.comparing)
    found = leakage(opened, groups)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _say_leakage(found)
    if strict and leaks(found):
        raise typer.Exit(1)


def _say_leakage(found: dict[str, Any]) -> None:
    """Print what `crossfer check` found, with an example of each."""
    table = Table("in", "also in", box=box.SIMPLE_HEAD)
    for column in ("of images", "exact", "near", "other label"):
        table.add_column(column, justify="right")
    for overlap in found["overlaps"]:
        places = [" ".join(overlap[end].values()) for end in ("second", "first")]
        numbers = [overlap[key] for key in ("images", "exact", "near", "relabelled")]
        table.add_row(*places, *(f"{number:,}" for number in numbers))
    if found["overlaps"]:
        out_console.print(table)
    for overlap in found["overlaps"]:
        first, second = overlap["examples"][0]["origins"]
        out_console.print(f"e.g. {second} = {first}", soft_wrap=True)
    for name, subjects in found["subjects"].items():
        if subjects:
            some = ", ".join(list(subjects)[:5])
            out_console.print(
                f"{name}: {len(subjects)} subjects in more than one split: {some}", soft_wrap=True
            )
    if not found["overlaps"] and not any(found["subjects"].values()):
        out_console.print("no image stands twice, and no subject in two splits")


@app.command()
def datasets() -> None:
    """List the datasets that can be read: size, licence, how to get them, the layout expected.

    Example:  crossfer datasets
    """
    from crossfer.datasets import READERS

    for reader in READERS.values():
        out_console.print(f"{reader.name}  {reader.title}", style="bold", soft_wrap=True)
        for key in ("size", "licence", "access", "layout", "citation"):
            if value := getattr(reader, key):
                out_console.print(f"    {key + ':':<10}{value}", soft_wrap=True)


@app.command()
def strategies() -> None:
    """List the strategies: where each starts, what trains, what data it needs, its cost, the paper.

    Example:  crossfer strategies
    """
    from crossfer.strategies import STRATEGIES, STUDY

    for strategy in STRATEGIES.values():
        recipe = strategy.default_recipe()
        own = " (the study's)" if strategy in STUDY else ""
        out_console.print(f"{strategy.name}  {strategy.about}{own}", style="bold", soft_wrap=True)
        facts = {
            "starts": {"random": "at random", "baseline": "from BL, or any network you have"}.get(
                strategy.start, f"from where {strategy.start} arrived"
            ),
            "trains": {"all": "every layer", "none": "nothing"}.get(
                strategy.layers, strategy.layers
            ),
            "sees": strategy.data.replace("+", " and ")
            + (f", {strategy.share:.0%} of each batch from the target" if strategy.share else ""),
            "past data": strategy.past_data.replace("some", str(strategy.exemplars)),
            "costs": _cost(strategy, recipe),
            "paper": strategy.paper,
        }
        for key, value in facts.items():
            if value:
                out_console.print(f"    {key + ':':<11}{value}", soft_wrap=True)


def _cost(strategy: Strategy, recipe: Recipe) -> str:
    """Say how often a strategy passes over its images, and how much of fine-tuning every layer that is."""
    from crossfer.experiment.plan import WORK

    if strategy.layers == "none":
        return "no training" + (
            ", one look at the validation sets for each mixture" if strategy.merge else ""
        )
    if strategy.data == "target" or strategy.share:
        times = recipe.epochs * WORK[strategy.layers] / (strategy.share or 1)
        return f"{recipe.epochs} passes over the target, worth {times:g} of fine-tuning every layer"
    return f"{recipe.epochs} passes over all the images it sees"


@app.command()
def run(
    experiment: Annotated[Path, typer.Argument(help="The configuration, a YAML file.")],
    data: Annotated[
        Path | None, typer.Option(help="Data root: what dataset paths are relative to.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The experiment's folder; by default runs/NAME-OF-THE-FILE.")
    ] = None,
) -> None:
    """Run an experiment, or what is left of it, and write its report.

    Stop it with Ctrl-C at any time: the same command goes on where it stopped.

    Example:  crossfer run configs/fer2013-ck48.yaml --data ~/faces --out runs/fer2013-ck48
    """
    from crossfer.experiment import load_experiment, run_experiment
    from crossfer.progress import Shown
    from crossfer.report import write_report

    configuration = load_experiment(experiment, data)
    folder = out or Path("runs") / experiment.stem
    with Shown(out_console) as shown:
        results = run_experiment(configuration, folder, shown)
    report_file = write_report(results, folder)
    _say_answer(results)
    out_console.print(f"\nReport: {report_file.resolve()}", soft_wrap=True)
    _say_failures(results)


@app.command()
def search(
    experiment: Annotated[Path, typer.Argument(help="The configuration, a YAML file.")],
    out: Annotated[Path, typer.Option(help="The search's folder.")],
    trials: Annotated[int, typer.Option(min=1, help="For each strategy.")] = 20,
    budget: Annotated[
        float, typer.Option(min=0, help="Of each trial, in fine-tuning-equivalent epochs.")
    ] = 30.0,
    strategies: Annotated[
        list[str] | None, typer.Option("--strategy", help="Only this one; repeat at will.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data root: what dataset paths are relative to.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed tries other recipes.")] = 0,
) -> None:
    """Tune the recipe of every strategy on validation data, with the same budget for each.

    The unit is what it takes to train every layer on the target's training set once.  The first trial is
    the recipe that the experiment has.  Interrupted, the same command goes on.  recipes.yaml in the folder
    holds the best ones, for `recipes:` in an experiment.  Needs Optuna (the extra “search”).

    Example:  crossfer search my-experiment.yaml --data data --out searches/mine --trials 20
    """
    from crossfer.experiment import load_experiment
    from crossfer.experiment import search as tune
    from crossfer.progress import Shown

    configuration = load_experiment(experiment, data)
    with Shown(out_console) as shown:
        found = tune(
            configuration,
            out,
            trials,
            budget,
            strategies or (),
            seed,
            shown,
            shown.searching,
        )
    table = Table("strategy", box=box.SIMPLE_HEAD)
    for column in ("as it was", "best", "source %", "target %", "epochs", "equivalent", "seconds"):
        table.add_column(column, justify="right")
    for one in found["strategies"]:
        first, best = one["default"]["value"], one["best"]
        table.add_row(
            one["name"],
            "–" if first is None else f"{first:.1f}",
            f"{best['value']:.1f}",
            *(f"{best[side]:.1f}" for side in ("source", "target")),
            str(best["recipe"]["epochs"]),
            f"{best['equivalent_epochs']:.1f}",
            f"{best['seconds']:.0f}",
        )
    out_console.print(table)
    for name, least in found["left_out"].items():
        out_console.print(
            f"{name} is left out: one epoch is {least:.1f} fine-tuning-equivalent epochs, "
            f"the budget {budget:g}"
        )
    out_console.print(f"recipes: {out / 'recipes.yaml'}", soft_wrap=True)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a finished experiment.")],
) -> None:
    """Write the report of a finished experiment again, from its results alone.

    Example:  crossfer report runs/fer2013-ck48
    """
    from crossfer.experiment import load_results
    from crossfer.report import write_report

    results = load_results(folder)
    report_file = write_report(results, folder)
    _say_answer(results)
    out_console.print(f"\nReport: {report_file.resolve()}", soft_wrap=True)


@app.command()
def verify(
    path: Annotated[
        Path, typer.Argument(help="An experiment's folder, or one of its run folders.")
    ],
    runs: Annotated[
        list[str] | None,
        typer.Option("--run", help="Only the run whose hash begins so; repeat at will."),
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train the networks again too, and compare the bits.")
    ] = False,
) -> None:
    """Check results: each run's hash, its files, and its metrics computed again from its predictions.

    Nothing in the folder is changed.  Exit status 1 if anything does not hold.

    Example:  crossfer verify runs/fer2013-ck48 --run 1f21bd2997f6e745 --retrain
    """
    from crossfer.experiment import Verdict
    from crossfer.experiment import verify as verify_results
    from crossfer.progress import Shown

    def say(verdict: Verdict) -> None:
        words = "; ".join(verdict.checked) or "does not hold"
        out_console.print(f"{verdict.label}: {words}", soft_wrap=True)
        for problem in verdict.problems:
            out_console.print(f"    {problem}", soft_wrap=True)

    with Shown(out_console) as shown:
        verdicts = verify_results(path, runs or (), retrain, say, shown)
    wrong = [verdict for verdict in verdicts if verdict.problems]
    out_console.print(f"{len(verdicts) - len(wrong)} of {len(verdicts)} runs hold")
    if wrong:
        raise typer.Exit(1)


@app.command()
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
    kind, exemplars = _past_data(past_data)
    limits = Constraints(max_source_drop, kind, exemplars, _seconds(budget))
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
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("strategy", no_wrap=True)
    for column in ("validation: source", "target", "test: source", "target", "seconds"):
        table.add_column(column, justify="right")
    table.add_column("")
    for row in comparable(results["summary"], choice["target"]):
        name = row["strategy"]
        remarks = choice["ruled_out"].get(name, [])
        if name == choice["strategy"]:
            remarks = ["the choice"]
        elif name in choice["front"] and not remarks:
            remarks = ["on the front"]
        table.add_row(
            name,
            *(f"{row[f'{side}_validation']['accuracy']:.1f}" for side in ("source", "target")),
            *(
                "{accuracy:.1f} ({0:.0f}–{1:.0f})".format(*test["interval"], **test)
                for test in (row["source_test"], row["target_test"])
            ),
            f"{row['seconds']:.0f}",
            "; ".join(remarks),
        )
    out_console.print(table)


@app.command()
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


def _past_data(text: str) -> tuple[str, int | None]:
    """Read what is left of the source."""
    kinds = {"none": "none", "statistics": "statistics", "all": "all source"}
    if text in kinds:
        return kinds[text], None
    if text.isascii() and text.isdigit() and int(text):
        return "some per class", int(text)
    raise CrossferError(
        f"--past-data {text}: write none, statistics, all, or how many images of each class"
    )


def _seconds(text: str | None) -> float | None:
    """Read a duration."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(s|min|h)", text)
    if not found:
        raise CrossferError(f"--budget {text}: write 90s, 10min or 2h")
    return float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]]


def _say_answer(results: dict[str, Any]) -> None:
    """Print the table of test accuracies and changes, and the answer."""
    from crossfer.report import answers

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("target", "share", "strategy"):
        table.add_column(column)
    for column in ("source %", "target %", "integrity", "gain", "seconds"):
        table.add_column(column, justify="right")
    before = None
    for row in results["summary"]:
        if before is not None and (row["target"], row["fraction"]) != before:
            table.add_section()
        before = (row["target"], row["fraction"])
        table.add_row(
            row["target"],
            "" if row["fraction"] is None else f"{row['fraction']:.0%}",
            row["strategy"],
            f"{row['source_test']['accuracy']:.1f}",
            f"{row['target_test']['accuracy']:.1f}",
            f"{row['memory_integrity']:+.1f}",
            f"{row['gain']:+.1f}",
            f"{row['seconds']:.0f}",
        )
    out_console.print(table)
    for sentence in answers(results):
        out_console.print(sentence)


def _say_failures(results: dict[str, Any]) -> None:
    """Name the runs that failed; then the command has failed too."""
    for run in results["failed"]:
        error_console.print(f"failed: {run['label']}: {run['why']}", markup=False, soft_wrap=True)
    if results["failed"]:
        error_console.print("the same command tries the failed ones again")
        raise typer.Exit(1)


def _label_map(pairs: list[str]) -> dict[str, str | None]:
    labels: dict[str, str | None] = {}
    for pair in pairs:
        theirs, equals, ours = pair.partition("=")
        if not equals or not theirs.strip():
            raise CrossferError(
                f"--label {pair}: write THEIRS=OURS, or THEIRS= to leave a class out"
            )
        labels[theirs] = ours or None
    return labels


def _numbers(option: str, text: str | None, example: Numbers) -> Numbers | None:
    """Read as many numbers as the example has."""
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != len(example):
        shown = ",".join(f"{number:g}" for number in example)
        raise CrossferError(f"{option} {text}: write {len(example)} numbers, e.g. {shown}")
    return cast(Numbers, numbers)


def _stop(number: int, frame: Any) -> None:
    """Stop cleanly, and the next time at once."""
    signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt


ON_DISK = {
    errno.ENOSPC: "the disk is full; make room, and the same command goes on",
    errno.EDQUOT: "your share of the disk is full; make room, and the same command goes on",
    errno.EROFS: "the disk is read-only; name another folder",
    errno.EACCES: "permission denied; name another folder, or change its permissions",
    errno.EPERM: "permission denied; name another folder, or change its permissions",
    errno.ENOENT: "no such file or folder; if it has vanished, bring it back, and the same command goes on",
}


def _in_words(error: CrossferError | OSError) -> str:
    """Return one line: what the system refused, and what to do."""
    text = str(error)
    if isinstance(error, OSError) and error.errno in ON_DISK:
        named = f"{error.filename}: " if error.filename else ""
        text = f"{named}{ON_DISK[error.errno]} ({error.strerror})"
    return " ".join(text.split())


def main() -> None:
    """Run the command line; what the user can mend is one line and exit status 2."""
    signal.signal(signal.SIGINT, _stop)
    try:
        app()
    except (CrossferError, OSError) as error:
        error_console.print("[red]error:[/] ", end="")
        error_console.print(_in_words(error), markup=False, soft_wrap=True)
        sys.exit(2)

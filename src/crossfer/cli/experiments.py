"""Commands for experiments: run one, tune it, write its report, check what it says."""

from __future__ import annotations

import errno
from functools import partial
from itertools import groupby
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.measure import Measurement

from crossfer.cli.application import app, error_console, out_console
from crossfer.cli.options import JsonOption, cluster_of, workers_of
from crossfer.cli.output import say, say_json, table_of
from crossfer.errors import CrossferError

if TYPE_CHECKING:
    from crossfer.evaluation.rows import Result, Results
    from crossfer.strategy import Strategy
    from crossfer.training import Recipe

command = partial(app.command, rich_help_panel="Experiments")
NUMBERS = ("source %", "target %", "integrity", "gain", "seconds")
"""Columns of the table after a run."""
MOST = 1000
"""Width of a terminal, in characters, that has room for any table."""
SLURM_PANEL = "With --on slurm (same values as for sbatch)"
SlurmOption = Annotated[str | None, typer.Option(rich_help_panel=SLURM_PANEL)]

ExperimentArgument = Annotated[Path, typer.Argument(help="The experiment's YAML file.")]
FolderArgument = Annotated[Path, typer.Argument(help="The folder of an experiment.")]
DataOption = Annotated[Path | None, typer.Option(help="Folder that dataset paths are relative to.")]
WorkersOption = Annotated[
    str,
    typer.Option(
        help="Networks trained at the same time, each in its own process: a number, or auto."
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help=(
            "Threads per process; default 1 with several workers or on a cluster, else all cores. A "
            "training that resumes on a CPU keeps its own number, and so gets the same bits."
        ),
        show_default=False,
    ),
]


@command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for all output of the demo.")] = Path("demo"),
) -> None:
    """Run the whole study on drawn faces, without a download, in a few minutes, and write a report.

    Example:  crossfer demo --out demo
    """
    _import_for_workers("auto")

    from crossfer.cli.progress import Shown
    from crossfer.demo import run_demo
    from crossfer.experiment import load_results

    say("Faces drawn by code stand in for FER2013, JAFFE, TFEID and MUG.")
    with Shown(out_console) as shown:
        report_file = run_demo(out, shown, shown.drawing, workers="auto")
    results = load_results(report_file.parent)
    _say_answer(results, report_file)
    _say_failures(results)
    _say_use(results, report_file.parent, out / "stand-ins")


@command()
def strategies() -> None:
    """List the strategies with their start, trained layers, data, cost and paper.

    Example:  crossfer strategies
    """
    from crossfer.evaluation.decision import past_data_in_words
    from crossfer.experiment.results import past_of
    from crossfer.strategies import STRATEGIES, STUDY

    for strategy in STRATEGIES.values():
        recipe = strategy.default_recipe()
        past_data, exemplars = past_of(strategy)
        own = " (the study's)" if strategy in STUDY else ""
        say(f"{strategy.name}  {strategy.about}{own}", "bold")
        facts = {
            "starts": {"random": "at random", "baseline": "from BL, or any network"}.get(
                strategy.start, f"from the result of {strategy.start}"
            ),
            "trains": f"the last layer, and adapters of rank {strategy.rank} beside large linear ones"
            if strategy.rank
            else {
                "all": "every layer",
                "body": "every layer but the last",
                "norms": "the normalisations",
                "none": "nothing",
            }.get(strategy.layers, strategy.layers),
            "sees": strategy.data.replace("+", " and ")
            + (f", {strategy.share:.0%} of each batch from the target" if strategy.share else "")
            + (", without its labels" if strategy.unlabelled else ""),
            "past data": past_data_in_words(past_data, exemplars),
            "mixed by": "validation images of the source and the target" if strategy.merge else "",
            "costs": _cost(strategy, recipe),
            "paper": strategy.paper,
        }
        for key, value in facts.items():
            if value:
                say(f"    {key + ':':<11}{value}")


def _cost(strategy: Strategy, recipe: Recipe) -> str:
    """Say how often a strategy passes over its images, and how much of fine-tuning every layer that is."""
    from crossfer.experiment.plan import work_of

    if strategy.unlabelled and strategy.layers == "none":
        return "no training, one pass over the target"
    if strategy.layers == "none":
        return "no training" + (
            ", one pass over the validation sets for each mixture" if strategy.merge else ""
        )
    if strategy.data == "target" or strategy.share:
        times = recipe.epochs * work_of(strategy) / (strategy.share or 1)
        return (
            f"{recipe.epochs} epochs on the target, equivalent to {times:g} epochs of fine-tuning "
            "every layer"
        )
    return f"{recipe.epochs} epochs on all its images"


@command()
def run(
    experiment: ExperimentArgument,
    data: DataOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The experiment's folder; default runs/NAME, after the YAML file."),
    ] = None,
    workers: WorkersOption = "auto",
    threads: ThreadsOption = None,
    on: Annotated[
        str,
        typer.Option(
            help=(
                "Where to train: here, slurm, a Ray cluster's HOST:PORT or ray://HOST:PORT, or ray "
                "(the cluster of RAY_ADDRESS, or else this machine)."
            )
        ),
    ] = "here",
    mem: Annotated[str | None, typer.Option(help="Memory per run on a cluster, e.g. 8G.")] = None,
    partition: SlurmOption = None,
    time: SlurmOption = None,
    account: SlurmOption = None,
    gres: SlurmOption = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(
            help="Another option for sbatch, e.g. --sbatch --qos=long. Repeatable.",
            rich_help_panel=SLURM_PANEL,
        ),
    ] = None,
) -> None:
    """Run or resume an experiment and write its report.

    Stop it with Ctrl-C at any time and resume it with the same command, with any number of workers. On a
    CPU, --workers auto starts one process of one thread per core. On a GPU it starts one process.

    With --on slurm, networks are trained as SLURM jobs, at most --workers at the same time. Stopping this
    command leaves them in the queue; run it again to wait for them and write the report. With --on ray,
    networks are trained as tasks of a Ray cluster, which needs no shared folder.

    Example:  crossfer run configs/fer2013-ck48.yaml --data ~/faces --out runs/fer2013-ck48

    Example:  crossfer run mine.yaml --out /shared/mine --on slurm --partition gpu --gres gpu:1 --time 2:00:00
    """
    at_a_time = workers_of(workers)
    if on == "here":
        _import_for_workers(at_a_time, threads or 1)

    from crossfer.cli.progress import Shown
    from crossfer.experiment import load_experiment, run_experiment

    given = {"partition": partition, "time": time, "account": account, "mem": mem, "gres": gres}
    configuration = load_experiment(experiment, data)
    cluster = cluster_of(on, given, sbatch or [], at_a_time, threads or 1)
    folder = out or Path("runs") / experiment.stem
    with Shown(out_console) as shown:
        results = run_experiment(
            configuration, folder, shown, workers=at_a_time, threads=threads, on=cluster
        )

    from crossfer.report import write_report

    report_file = write_report(results, folder)
    _say_answer(results, report_file)
    _say_failures(results)


def _import_for_workers(workers: int | Literal["auto"], threads: int = 1) -> None:
    """Begin the imports of processes that will train beside this process's own, where both find a core."""
    from crossfer.executors.processes import import_once
    from crossfer.processor import available_cores

    if workers != 1 and available_cores() > 1:
        import_once(["crossfer.experiment.run", "crossfer.training.backends.loaded"], threads)


@command("run-one")
def run_one(
    folder: Annotated[Path, typer.Argument(help="The folder of a started experiment.")],
    key: Annotated[str, typer.Argument(help="The run's key, as `crossfer status` shows it.")],
) -> None:
    """Train and measure a single run of an experiment started with crossfer run.

    Use it with your own scheduler. The run that it starts from must be finished. Runs are locked, so two
    machines that share the folder never train the same run. On SIGTERM or SIGUSR1 it writes a checkpoint
    after the current step and exits with status 130.

    Example:  crossfer run-one runs/fer2013-ck48 1f21bd2997f6e745
    """
    import signal

    asked: list[int] = []
    for name in ("SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, frame: asked.append(number))

    from crossfer.cli.progress import Shown
    from crossfer.experiment.run import run_one as carry_out

    with Shown(out_console) as shown:
        carry_out(folder, key, shown, lambda: bool(asked))


@command()
def cancel(
    folder: FolderArgument,
) -> None:
    """Cancel an experiment's SLURM jobs. Finished runs are kept, running ones write a checkpoint.

    Example:  crossfer cancel runs/fer2013-ck48
    """
    from crossfer.executors.slurm import cancel as take_back
    from crossfer.experiment.status import SLURM

    count = take_back(folder / SLURM)
    say(f"{count} run{'' if count == 1 else 's'} removed from SLURM's queue")


@command()
def status(
    folder: FolderArgument,
    as_json: JsonOption = False,
) -> None:
    """Show the state of each run of an experiment: finished, running, queued, failed or waiting.

    Works on any machine that sees the folder. SLURM jobs are listed if SLURM is available.

    Example:  crossfer status runs/fer2013-ck48
    """
    from collections import Counter
    from dataclasses import asdict

    from crossfer.experiment.status import status as ask

    found = ask(folder)
    if as_json:
        say_json([asdict(one) for one in found])
        return
    for one in found:
        detail = f"  ({one.detail})" if one.detail else ""
        say(f"{one.key}  {one.state:<11}  {one.label}{detail}")
    counts = Counter(one.state for one in found)
    say(", ".join(f"{count} {state}" for state, count in counts.items()))


@command()
def search(
    experiment: ExperimentArgument,
    out: Annotated[Path, typer.Option(help="The search's folder.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials per strategy.")] = 20,
    budget: Annotated[
        float, typer.Option(min=0, help="Budget per trial, in fine-tuning-equivalent epochs.")
    ] = 30.0,
    strategies: Annotated[
        list[str] | None, typer.Option("--strategy", help="Only this strategy. Repeatable.")
    ] = None,
    data: DataOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the recipes that are tried.")] = 0,
    workers: WorkersOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Tune the recipe of each strategy on validation data, with the same budget for each.

    The budget's unit is one epoch of training every layer on the target's training set. The first trial
    uses the experiment's recipe. Of the YAML it uses the first seed and the largest fraction, and neither
    cache, copies, protocols nor tracking. Failed trials count. Run the same command again to resume.
    Trials of a strategy run in sequence; several workers tune several strategies. The folder's
    recipes.yaml contains the best recipes, for `recipes:` in an experiment. Needs Optuna (the extra
    “search”).

    Example:  crossfer search my-experiment.yaml --data data --out searches/mine --trials 20
    """
    at_a_time = workers_of(workers)
    _import_for_workers(at_a_time, threads or 1)

    from crossfer.cli.progress import Shown
    from crossfer.experiment import load_experiment
    from crossfer.experiment import search as tune
    from crossfer.experiment.search import RECIPES, unused

    configuration = load_experiment(experiment, data)
    if left := unused(configuration):
        say(f"not used by a search: {', '.join(left)}")
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
            workers=at_a_time,
            threads=threads,
        )
    columns = ("default", "best", "source %", "target %", "epochs", "equivalent", "seconds")
    table = table_of("strategy", *columns, padding=(0, 1))
    for one in found.strategies:
        best = one.best
        row = [one.default.value, best.value, best.source, best.target]
        table.add_row(
            one.name,
            *("–" if value is None else f"{value:.1f}" for value in row),
            str(best.recipe["epochs"]),
            f"{best.equivalent_epochs:.1f}",
            f"{best.seconds:.0f}",
        )
    if found.strategies:
        out_console.print(table)
    for name, least in found.left_out.items():
        out_console.print(
            f"{name} is left out: one epoch is {least:.1f} fine-tuning-equivalent epochs, "
            f"the budget {budget:g}"
        )
    if found.strategies:
        say(f"recipes: {out / RECIPES}")
    for name, why in found.failed.items():
        error_console.print(f"{name}: every trial failed: {why}", markup=False, soft_wrap=True)
    if found.failed:
        raise typer.Exit(1)


@command()
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a finished experiment.")],
) -> None:
    """Write the report of a finished experiment again from its results.

    Example:  crossfer report runs/fer2013-ck48
    """
    from crossfer.experiment import load_results
    from crossfer.report import write_report

    results = load_results(folder)
    try:
        report_file = write_report(results, folder)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise CrossferError(
            f"{folder}: the report is written into it, which is not allowed ({error.strerror}); copy the "
            "folder to where you may write"
        ) from None
    _say_answer(results, report_file)


@command()
def cite(
    folder: Annotated[
        Path, typer.Argument(help="The folder of a finished experiment, or one of its run folders.")
    ],
) -> None:
    """Print BibTeX for the datasets, strategies and methods of an experiment or a run.

    Example:  crossfer cite runs/fer2013-ck48 > crossfer.bib
    """
    from crossfer.experiment import load_results
    from crossfer.experiment.results import RESULTS
    from crossfer.report.citing import cited
    from crossfer.run_folder import is_finished, read_run

    if is_finished(folder):
        if not (folder.resolve().parents[1] / RESULTS).exists():
            raise CrossferError(
                f"{folder}: no {RESULTS} two folders above, as for a run in a cache:; name the experiment"
            )
        results, strategy = load_results(folder.resolve().parents[1]), read_run(folder)["strategy"]
    else:
        results, strategy = load_results(folder), None
    say(cited(results, strategy))


@command()
def verify(
    path: Annotated[
        Path, typer.Argument(help="An experiment's folder, or one of its run folders.")
    ],
    runs: Annotated[
        list[str] | None,
        typer.Option("--run", help="Only the run whose key starts with this. Repeatable."),
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Also train the networks again and compare the bits.")
    ] = False,
    workers: WorkersOption = "auto",
) -> None:
    """Check reproducibility: keys and files of all runs, and all numbers recomputed from the predictions.

    Changes nothing in the folder. Exits with status 1 if a check fails.

    Example:  crossfer verify runs/fer2013-ck48 --run 1f21bd2997f6e745 --retrain
    """
    from crossfer.cli.progress import Shown
    from crossfer.experiment import Verdict
    from crossfer.experiment import verify as verify_results

    if workers != "auto" and not retrain:
        raise CrossferError("--workers: only for --retrain; add it, or leave this out")

    def tell(verdict: Verdict) -> None:
        words = "; ".join(verdict.checked) or "failed"
        say(f"{verdict.label}: {words}")
        for problem in verdict.problems:
            say(f"    {problem}")

    with Shown(out_console) as shown:
        verdicts = verify_results(
            path, runs or (), retrain, tell, shown, workers=workers_of(workers)
        )
    wrong = [verdict for verdict in verdicts if verdict.problems]
    say(f"{len(verdicts) - len(wrong)} of {len(verdicts)} passed")
    if wrong:
        raise typer.Exit(1)


def _say_use(results: Results, folder: Path, photographs: Path) -> None:
    """Print how the first target's new model is used on a photograph of it."""
    for choice in results.recommendations[:1]:
        photograph = min((photographs / choice.target).iterdir())
        network = folder / results.run(choice.run).folder
        say(
            f"\nUse the model recommended for {choice.target}:\n"
            f"  crossfer predict {quote(str(network))} {quote(str(photograph))}"
        )


def _say_answer(results: Results, report_file: Path) -> None:
    """Print the table of test accuracies and changes, the answer, and where there is more."""
    from crossfer.report import answers, copied

    table = table_of("target", "strategy", *NUMBERS)
    table.columns[1].justify = "left"
    for column in table.columns[2:]:
        column.no_wrap, column.min_width = True, len(str(column.header))
    targets = list(dict.fromkeys(row.target for row in results.summary))
    fractions = {row.fraction for row in results.summary} - {None}

    def block(row: Result) -> tuple[int, float]:
        return targets.index(row.target), row.fraction or 0

    for _, rows in groupby(sorted(results.summary, key=block), block):
        for row in rows:
            share = f" {row.fraction:.0%}" if row.fraction and len(fractions) > 1 else ""
            table.add_row(
                row.target + share,
                row.strategy,
                f"{row.on_source.test.accuracy:.1f}",
                f"{row.on_target.test.accuracy:.1f}",
                f"{row.memory_integrity.points:+.1f}",
                f"{row.gain.points:+.1f}",
                f"{row.cost.seconds:.0f}",
            )
        table.add_section()
    # On a narrow terminal Rich would leave out the names; so it is the terminal that wraps the lines.
    least = Measurement.get(out_console, out_console.options.update(width=MOST), table).minimum
    table.width = least if out_console.width < least else None
    out_console.print(table, crop=False)
    for sentence in [*answers(results), *copied(results)]:
        out_console.print(sentence)
    say(f"\nReport: {report_file.resolve()}")


def _say_failures(results: Results) -> None:
    """Name the runs that failed; then the command has failed too."""
    from crossfer.experiment.run import BECAUSE_OF

    for run in results.failed:
        error_console.print(f"failed: {run.label}: {run.why}", markup=False, soft_wrap=True)
    reasons = [run.why for run in results.failed if not run.why.startswith(BECAUSE_OF)]
    if not all("; " in why for why in reasons):  # some do not say what to do
        error_console.print("run the same command again to retry the failed runs")
    if results.failed:
        raise typer.Exit(1)

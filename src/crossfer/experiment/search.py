"""Hyper-parameter search on validation data, with the same budget for every strategy.

The unit of the budget is the *fine-tuning-equivalent epoch*: the cost of training every layer on the target's
training set once.  One epoch with three source images per target image costs four; one of the last layers, a
fraction.  Every strategy gets the same number of trials, and no trial may exceed the budget; the number of
epochs is one of the tuned hyper-parameters.

A trial is a task that depends on the previous one.  Strategies are tuned in parallel, and the trials do not
depend on the number of workers.

The objective is the mean of the validation accuracies on source and target; test sets are not used.  (Like
any finished run, a trial's network is measured on the test sets, too, but the search does not read that.)
The first trial, the unchanged recipe, is kept until another is shown to be better (`crossfer.selection`).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from crossfer.datasets.dataset import Dataset
from crossfer.errors import CrossferError, one_line
from crossfer.evaluation.rows import Row
from crossfer.executors import Events, Task, Work
from crossfer.executors.graph import Emit
from crossfer.experiment.clusters import RUNS
from crossfer.experiment.config import EVERY, Experiment, changed
from crossfer.experiment.execute import execute
from crossfer.experiment.folder import folder_of, load_answers, parts_of
from crossfer.experiment.identity import Arithmetic
from crossfer.experiment.names import LOCK
from crossfer.experiment.opening import (
    DATASETS,
    check_model,
    check_paths,
    open_datasets,
)
from crossfer.experiment.plan import Run, plan
from crossfer.experiment.progress import Progress
from crossfer.experiment.run import alone_in, check_free
from crossfer.experiment.workers import STEP, Steps, Workers, carry_out, how_many, task_of
from crossfer.files import write_bytes, write_json
from crossfer.machine import Machine
from crossfer.run_folder import load_run
from crossfer.selection import Lead, lead
from crossfer.strategies import starts
from crossfer.strategy import Strategy
from crossfer.validation import adapter

if TYPE_CHECKING:
    import optuna

BUDGET = 30.0
"""Default budget: the 30 epochs of the default recipe for fine-tuning."""

JOURNAL, RECIPES, SEARCH = "trials.journal", "recipes.yaml", "search.json"
BEGUN = (LOCK, f"{LOCK}.owner", DATASETS)
"""Files that the folder of a search may contain while it prepares data."""

STARTED, ENDED, FAILED = "started", "ended", "failed"
"""Events of a trial about its runs."""

Numbers = Mapping[str, int | float]
OnTrial = Callable[[str, int, int], None]
TUNED = ("learning_rate", "epochs", "batch_size", "weight_decay", "label_smoothing")


@dataclass(frozen=True, slots=True)
class Trial(Row):
    """A recipe that was tried."""

    recipe: Numbers
    runs: tuple[str, ...]
    """Keys, one a target."""
    value: float | None = None
    """Mean of the validation accuracies of both sides, in per cent, over the targets; None: it failed."""
    source: float | None = None
    """Validation accuracy on the source."""
    target: float | None = None
    """Validation accuracy on the targets."""
    equivalent_epochs: float | None = None
    seconds: float | None = None
    ahead: float | None = None
    """Of the trial that was kept before, in points."""
    error: float | None = None
    """Standard error of `ahead`."""
    kept: bool = False
    """Whether it was shown to be better than the one kept before."""
    why: str | None = None
    """Why it failed."""


@dataclass(frozen=True, slots=True)
class Tuned(Row):
    """A strategy's trials."""

    name: str
    data: tuple[str, ...]
    """Fingerprints of the source and the targets."""
    budget: float
    seed: int
    default: Trial
    """With the recipe that the experiment has, cut to the budget."""
    best: Trial
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class Searched(Row):
    """The content of ``search.json``."""

    strategies: tuple[Tuned, ...]
    """Those of earlier searches in the folder on the same data, too."""
    left_out: Mapping[str, float]
    """What one epoch takes, of strategies for which that is beyond the budget."""
    failed: Mapping[str, str]
    """Why, where every trial failed."""
    unit: str = "fine-tuning-equivalent epochs"


def equivalent_epochs(run: Run) -> float:
    """Return the cost of a run in fine-tuning-equivalent epochs, without extra passes of penalties."""
    return run.work / run.target_images


def can_be_tuned(strategy: Strategy) -> bool:
    """Tell whether a strategy trains on the target, with labels: they choose the recipe."""
    return strategy.layers != "none" and "target" in strategy.sides and not strategy.unlabelled


def search(
    experiment: Experiment,
    out: str | Path,
    trials: int = 20,
    budget: float = BUDGET,
    strategies: Sequence[str] = (),
    seed: int = 0,
    progress: Progress | None = None,
    on_trial: OnTrial = lambda strategy, done, total: None,
    *,
    workers: Workers = 1,
    threads: int | None = None,
) -> Searched:
    """Tune the recipe of each strategy of an experiment on its first seed and largest fraction.

    The first trial is the experiment's recipe, limited to the budget.  After an interruption, the same call
    resumes with the same trials.  A trial that fails (it diverges, or runs out of memory) counts as a trial.

    Parameters
    ----------
    experiment
        Its source, targets, strategies, recipes (the first trials) and machine are used.
    out
        A folder for prepared datasets, runs and trials.  Only the best runs of a strategy are kept.
    trials
        Number of trials per strategy.
    budget
        Budget of each trial, in fine-tuning-equivalent epochs per target.
    strategies
        Names of the strategies to tune; by default all that can be tuned.
    seed
        Seed of the search.
    progress
        Receives the events of preparation and training.
    on_trial
        Called with a strategy and its numbers of trials done and in total.
    workers, threads
        As for `crossfer.experiment.run_experiment`: the number of strategies tuned at the same time.

    Returns
    -------
    Searched
        The content of ``search.json``.

    Raises
    ------
    CrossferError
        If Optuna is not installed, a strategy is unknown, a run that trials start from failed, or every trial
        failed.
    OSError
        If the disk is full or not writable; the same call resumes afterwards.
    """
    out, progress = Path(out), progress or Progress()
    if experiment.folds:
        raise CrossferError(
            "folds: a search would tune on images that other folds test; search without folds on "
            "other people, then run with folds"
        )
    _optuna()
    tuned = _chosen(experiment, strategies)
    if not 0 < budget < math.inf:
        raise CrossferError(f"--budget {budget:g}: must be above 0")
    experiment = experiment.model_copy(
        update={
            "seeds": experiment.seeds[:1],
            "fractions": experiment.fractions[-1:],
            "protocols": [],
        }
    )
    check_free(out, "search", JOURNAL, BEGUN)
    check_paths(experiment)
    machine = Machine.of(experiment.device, experiment.precision, experiment.deterministic)
    with alone_in(out):
        check_model(experiment, machine)
        asked = _Asked(experiment, out, tuple(tuned), trials, budget, seed)
        datasets = open_datasets(experiment, out, progress)
        every = asked.trials_on(datasets, machine)
        before = _found_before(out / SEARCH, [dataset.fingerprint for dataset in datasets])
        events = _Events(every, before, progress, on_trial)
        tasks, runs = _graph(every.values())
        processes = how_many(
            workers,
            [one.work for one in every.values()],
            sum(bool(one.left) for one in every.values()),
            machine,
            threads,
            devices=experiment.devices,
        )
        failures = carry_out(
            tasks,
            lambda: _work(every),
            partial(_open_worker, asked),
            events,
            processes,
        )
        found = events.write()
    for key, failure in failures.items():
        if not failure.because_of:
            what = runs[key].label if key in runs else key
            raise CrossferError(f"{what} failed: {failure.why}")
    if found.failed and len(found.failed) + len(found.left_out) == len(tuned):
        why = next(iter(found.failed.values()))
        raise CrossferError(
            f"{', '.join(found.failed)}: every trial failed ({why}); fix this, and use another "
            "--seed"
        )
    return found


def _chosen(experiment: Experiment, names: Sequence[str]) -> list[str]:
    """Return the names of the strategies to tune, by default all that can be tuned."""
    known = [strategy.name for strategy in experiment.strategies if can_be_tuned(strategy)]
    if not known:
        raise CrossferError(
            "strategies: none is trained on the target, so there is nothing to tune; add one"
        )
    if unknown := [name for name in names if name not in known]:
        raise CrossferError(f"--strategy {unknown[0]}: choose among {', '.join(known)}")
    return [name for name in known if not names or name in names]


@dataclass(frozen=True)
class _Asked:
    """A search as plain values, which can be sent to other processes."""

    experiment: Experiment
    out: Path
    strategies: tuple[str, ...]
    trials: int
    budget: float
    seed: int

    def trials_on(self, datasets: list[Dataset], machine: Machine) -> dict[str, _Trials]:
        """Return the trials of each strategy."""
        optuna = _optuna()
        storage = optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(self.out / JOURNAL))
        )
        known = {strategy.name: strategy for strategy in self.experiment.strategies}
        every = {
            name: _Trials(self, known[name], datasets, machine, storage) for name in self.strategies
        }
        for one in every.values():  # runs that other strategies need are not deleted
            others = (other.needed for other in every.values() if other is not one)
            one.spared = frozenset(one.starts).union(*others)
        return every


def _open_worker(asked: _Asked) -> Work:
    experiment = asked.experiment
    machine = Machine.of(experiment.device, experiment.precision, experiment.deterministic)
    datasets = open_datasets(experiment, asked.out, Progress(), checked=True)
    return _work(asked.trials_on(datasets, machine))


def _graph(every: Iterable[_Trials]) -> tuple[list[Task], dict[str, Run]]:
    """Return the remaining tasks, the runs that trials start from and the trials, and these runs by key."""
    runs: dict[str, Run] = {}
    trials: list[Task] = []
    for one in every:
        if one.left:
            runs |= one.starts
        before = tuple(one.starts)
        for number in one.left:
            key = one.key_of(number)
            trials.append(Task(key, before))
            before = (key,)
    return [*map(task_of, runs.values()), *trials], runs


def _work(every: Mapping[str, _Trials]) -> Work:
    """Return the function that carries out a trial, or a run that trials start from."""
    runs = {key: (one, run) for one in every.values() for key, run in one.starts.items()}
    numbered = {one.key_of(number): (one, number) for one in every.values() for number in one.all}

    def work(key: str, tell: Emit) -> None:
        if key in runs:
            one, run = runs[key]
            one.execute(run, tell)
        else:
            one, number = numbered[key]
            one.take(number, tell)

    return work


class _Events(Events):
    """Translates the events of trials, and writes the results after a strategy's last trial."""

    def __init__(
        self,
        every: Mapping[str, _Trials],
        before: dict[str, Tuned],
        progress: Progress,
        on_trial: OnTrial,
    ) -> None:
        self.every, self.before, self.progress, self.on_trial = every, before, progress, on_trial
        self.runs: dict[str, Run] = {}
        self.trials = {o.key_of(n): (o, n) for o in every.values() for n in o.all}
        for one in every.values():
            if one.all and not one.left:
                on_trial(one.strategy.name, len(one.all), len(one.all))

    def started(self, key: str) -> None:
        if key in self.trials:
            one, number = self.trials[key]
            self.on_trial(one.strategy.name, number, len(one.all))

    def told(self, key: str, what: str, value: Any) -> None:
        if what == STARTED:
            self.runs[key] = value
            self.progress.started(value)
        elif what == STEP:
            self.progress.step(self.runs[key], value)
        elif what == FAILED:
            self.progress.failed(self.runs[key], value)
        elif what == ENDED:
            self.progress.ended(self.runs[key], value)

    def succeeded(self, key: str) -> None:
        one, number = self.trials.get(key, (None, 0))
        if one and number + 1 == len(one.all):
            self.on_trial(one.strategy.name, len(one.all), len(one.all))
            self.write()

    def write(self) -> Searched:
        """Write and return the results so far."""
        known = dict(self.before)
        failed: dict[str, str] = {}
        left_out: dict[str, float] = {}
        for name, one in self.every.items():
            ended = one.ended[: len(one.all)]
            if not one.all:
                left_out[name] = one.least
            elif len(ended) == len(one.all):
                best = one.best
                if best is None:
                    failed[name] = str(ended[0].why)
                else:
                    asked = one.asked
                    known[name] = Tuned(
                        name, one.data, asked.budget, asked.seed, ended[0], best, tuple(ended)
                    )
        found = Searched(tuple(known.values()), left_out, failed)
        asked = next(iter(self.every.values())).asked
        out, changes = asked.out, asked.experiment.recipes
        recipes = {one.name: _whole(changes, one.name, one.best) for one in found.strategies}
        write_json(out / SEARCH, asdict(found))
        write_bytes(out / RECIPES, yaml.safe_dump(recipes, sort_keys=False).encode("utf-8"))
        return found


class _Trials:
    """The trials of one strategy.

    Parameters
    ----------
    asked
        The search.
    strategy
        The strategy.
    datasets
        The open source and targets.
    machine
        Device and precision.
    storage
        Optuna's storage of all trials.
    """

    def __init__(
        self,
        asked: _Asked,
        strategy: Strategy,
        datasets: list[Dataset],
        machine: Machine,
        storage: optuna.storages.BaseStorage,
    ) -> None:
        experiment = asked.experiment
        known = {other.name: other for other in experiment.strategies}
        needed = [experiment.strategies[0].name, *starts(strategy, known), strategy.name]
        chosen = [other for other in experiment.strategies if other.name in needed]
        self.experiment = experiment.model_copy(update={"strategies": chosen})
        self.asked, self.strategy, self.machine = asked, strategy, machine
        self.source, *self.targets = datasets
        self.data = tuple(dataset.fingerprint for dataset in datasets)
        self.runs_folder = asked.out / RUNS
        self.least = max(map(equivalent_epochs, self.runs({"epochs": 1})))
        """Cost of one epoch."""
        self.most = int(asked.budget / self.least)
        """Maximum number of epochs within the budget."""
        self.all = range(asked.trials if self.most else 0)
        planned = self.planned(self.default)
        self.starts = {run.key: run for run in planned if run.strategy.name != strategy.name}
        """The baseline and the other runs that the strategy starts from, the same for all trials."""
        first = self.runs(self.first) if self.most else []
        self.needed = frozenset(self.starts) | {run.key for run in first}
        """Keys of these runs and of the first trial's runs."""
        self.spared: frozenset[str] = frozenset()
        """Keys of runs that are never deleted."""
        if self.most:
            # With other data or another default recipe it is another search.
            own = "+".join(run.key for run in self.runs(self.default))
            self.study = _optuna().create_study(
                study_name=f"{strategy.name}, {asked.budget:g}, {asked.seed}, {own}",
                storage=storage,
                direction="maximize",
                load_if_exists=True,
            )

    def key_of(self, number: int) -> str:
        """Return the key of a trial's task."""
        return f"{self.strategy.name}, trial {number + 1}"

    @property
    def ended(self) -> list[Trial]:
        """The finished trials, in order."""
        trials = self.study.trials if self.most else []
        told = [trial.user_attrs["measured"] for trial in trials if trial.state.is_finished()]
        return adapter(list[Trial]).validate_python(told)

    @property
    def best(self) -> Trial | None:
        """The best trial so far: the last that was shown to be better than the best before it."""
        return next((trial for trial in reversed(self.ended) if trial.kept), None)

    @property
    def left(self) -> range:
        """The numbers of the unfinished trials."""
        return self.all[len(self.ended) :]

    @property
    def work(self) -> float:
        """Maximum cost of its trials, in the unit of `Run.work`."""
        return len(self.all) * self.most * sum(run.work for run in self.runs({"epochs": 1}))

    @property
    def default(self) -> dict[str, int | float]:
        """The tuned hyper-parameters in the experiment's recipe."""
        recipe = asdict(self.experiment.recipe(self.strategy))
        return {name: recipe[name] for name in TUNED}

    @property
    def first(self) -> dict[str, int | float]:
        """The recipe of the first trial: the default, limited to the budget."""
        return self.default | {"epochs": min(self.default["epochs"], self.most)}

    def planned(self, recipe: Numbers) -> list[Run]:
        """Plan the baseline, the runs that the strategy starts from, and the strategy with a recipe."""
        name = self.strategy.name
        recipes = self.experiment.recipes
        changed = recipes | {name: recipes.get(name, {}) | dict(recipe)}
        experiment = self.experiment.model_copy(update={"recipes": changed})
        return plan(experiment, self.source, self.targets, Arithmetic.of(self.machine))

    def runs(self, recipe: Numbers) -> list[Run]:
        """Return the strategy's own runs, one per target."""
        return [run for run in self.planned(recipe) if run.strategy.name == self.strategy.name]

    def take(self, number: int, tell: Emit) -> None:
        """Carry out a trial, independently of interruptions; delete runs that are not the best."""
        optuna, study = _optuna(), self.study
        waiting = optuna.trial.TrialState.WAITING
        if number == 0 and not study.get_trials(deepcopy=False, states=(waiting,)):
            study.enqueue_trial(self.first)  # again where the first one was interrupted
        # Seeded by the trial's number, so that an interrupted trial gets the same recipe and resumes.
        chance = int(np.random.SeedSequence([self.asked.seed, number]).generate_state(1)[0])
        study.sampler = optuna.samplers.TPESampler(seed=chance)
        trial = study.ask()
        recipe = {
            "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1.0, log=True),
            "epochs": trial.suggest_int("epochs", 1, self.most, log=True),
            "batch_size": trial.suggest_int("batch_size", 8, 256, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 1e-7, 1e-1, log=True),
            "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.3),
        }
        measured = self.measure(recipe, self.best, tell)
        trial.set_user_attr("measured", asdict(measured))
        if measured.value is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, measured.value)
        best = self.best
        tried = {key for trial in self.ended for key in trial.runs}
        self.forget(tried - set(best.runs if best else ()) - self.spared)

    def measure(self, recipe: Numbers, kept: Trial | None, tell: Emit) -> Trial:
        """Train with a recipe; return the trial with its validation results, or why it failed.

        It replaces the best trial so far, `kept`, if it is shown to be better (`crossfer.selection`).
        """
        runs = self.runs(recipe)
        tried = Trial(recipe, tuple(run.key for run in runs))
        try:
            for run in runs:
                self.execute(run, tell)
        except CrossferError as error:
            return replace(tried, why=str(error))
        source = [self._accuracy(run, self.source) for run in runs]
        target = [self._accuracy(run, self._target(run)) for run in runs]
        ahead = self._ahead(runs, self.runs(kept.recipe)) if kept else None
        records = [load_run(folder_of(run, self.runs_folder)) for run in runs]
        return replace(
            tried,
            value=float(np.mean([*source, *target])),
            source=float(np.mean(source)),
            target=float(np.mean(target)),
            equivalent_epochs=sum(map(equivalent_epochs, runs)),
            seconds=sum(record.cost.seconds for record in records),
            ahead=100 * ahead.difference if ahead else None,
            error=100 * ahead.error if ahead else None,
            kept=ahead is None or ahead.shown,
        )

    def forget(self, keys: set[str]) -> None:
        """Delete the folders of runs."""
        for key in keys:
            for folder in self.runs_folder.glob(f"*-{key}"):
                shutil.rmtree(folder)

    def execute(self, run: Run, tell: Emit) -> None:
        """Train and measure one run.

        Raises
        ------
        CrossferError
            If the run fails, e.g. because it diverges or runs out of memory.
        OSError
            If the system fails, e.g. because the disk is full.
        """
        tell(STARTED, run)
        steps = Steps(tell)
        measured_on = [self.source, *([self._target(run)] if run.target else self.targets)]
        datasets = [self.source, *self.targets]
        try:
            folder = execute(run, self.runs_folder, datasets, measured_on, self.machine, steps)
        except OSError:
            raise
        except Exception as error:
            tell(FAILED, one_line(error))
            raise CrossferError(f"{run.label} failed: {one_line(error)}") from error
        steps.tell()
        tell(ENDED, folder)

    def _target(self, run: Run) -> Dataset:
        assert run.target is not None, "what is tuned trains on a target"
        return run.target.open(self.targets)

    def _accuracy(self, run: Run, dataset: Dataset) -> float:
        return 100 * float(self._right(run, dataset).mean())

    def _right(self, run: Run, dataset: Dataset) -> NDArray[np.bool_]:
        """Return whether a run's network is right on each validation image.

        Losses are not compared, since recipes differ in the confidence of their networks.
        """
        folder = folder_of(run, self.runs_folder)
        return load_answers(folder, parts_of(dataset), "validation", {}).right

    def _ahead(self, runs: Sequence[Run], kept: Sequence[Run]) -> Lead:
        """Return the difference of two trials' accuracies, over all targets and both sides."""
        mine: dict[str, NDArray[np.bool_]] = {}
        theirs: dict[str, NDArray[np.bool_]] = {}
        subjects = {}
        for number, (run, before) in enumerate(zip(runs, kept, strict=True)):
            for dataset in (self.source, self._target(run)):
                name = f"{number}/{dataset.name}"
                rows = dataset.rows("validation")
                subjects[name] = dataset.people(rows)
                mine[name], theirs[name] = (self._right(r, dataset) for r in (run, before))
        return lead(mine, theirs, subjects)


def _whole(recipes: Mapping[str, Mapping[str, Any]], name: str, best: Trial) -> dict[str, Any]:
    """Return what a recipe changes of the default one: as the experiment does, and as it was found."""
    found: dict[str, Any] = {}
    tuned: Mapping[str, Any] = best.recipe
    for changes in (recipes.get(EVERY, {}), recipes.get(name, {}), tuned):
        found = changed(found, changes)
    return found


def _found_before(file: Path, data: Sequence[str]) -> dict[str, Tuned]:
    """Return the results of earlier searches in the folder on the same data, by strategy."""
    try:
        searched = adapter(Searched).validate_json(file.read_bytes())
    except (OSError, ValueError):  # there was none, or somebody edited it
        return {}
    return {one.name: one for one in searched.strategies if one.data == tuple(data)}


def _optuna() -> Any:
    try:
        import optuna
        import optuna.storages.journal
    except ImportError:
        raise CrossferError("the search needs Optuna: pip install 'crossfer[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from crossfer.datasets.dataset import Dataset
from crossfer.errors import CrossferError, one_line
from crossfer.evaluation.rows import Row
from crossfer.executors import Events, Task, Work
from crossfer.executors.graph import Emit
from crossfer.experiment.config import EVERY, Experiment, changed
from crossfer.experiment.names import LOCK
from crossfer.experiment.opening import (
    DATASETS,
    check_model,
    check_paths,
    open_datasets,
)
from crossfer.experiment.plan import Run
from crossfer.experiment.progress import SAID, STEP, Progress
from crossfer.experiment.run import alone_in, check_free
from crossfer.experiment.trials import (
    ENDED,
    FAILED,
    STARTED,
    Search,
    Trial,
    Trials,
    import_optuna,
)
from crossfer.experiment.workers import Workers, carry_out, how_many, task_of
from crossfer.files import write_bytes, write_json
from crossfer.machine import Machine
from crossfer.strategy import Strategy
from crossfer.validation import adapter

BUDGET = 30.0
"""Default budget: the 30 epochs of the default recipe for fine-tuning."""


JOURNAL, RECIPES, SEARCH = "trials.journal", "recipes.yaml", "search.json"


BEGUN = (LOCK, f"{LOCK}.owner", DATASETS)
"""Files that the folder of a search may contain while it prepares data."""


OnTrial = Callable[[str, int, int], None]


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


def unused(experiment: Experiment) -> list[str]:
    """Return what a search does not use of an experiment that sets it, for a line to the user."""
    words = {key: key for key in ("cache", "copies", "protocols", "tracking")}
    words |= {"seeds": "seeds after the first"} if experiment.seeds[1:] else {}
    words |= {"fractions": "fractions below the largest"} if experiment.fractions[1:] else {}
    return [words[key] for key in words if key in experiment.model_fields_set]


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
    import_optuna()
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
        _cut_unfinished_line(out / JOURNAL)
        asked = Search(experiment, out, tuple(tuned), trials, budget, seed)
        datasets = open_datasets(experiment, out, progress)
        every = _trials_on(asked, datasets, machine)
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


def _trials_on(asked: Search, datasets: list[Dataset], machine: Machine) -> dict[str, Trials]:
    """Return the trials of each strategy."""
    storage = _open_journal(asked.out / JOURNAL)
    known = {strategy.name: strategy for strategy in asked.experiment.strategies}
    every = {
        name: Trials(asked, known[name], datasets, machine, storage) for name in asked.strategies
    }
    for one in every.values():  # runs that other strategies need are not deleted
        others = (other.needed for other in every.values() if other is not one)
        one.spared = frozenset(one.starts).union(*others)
    return every


def _open_journal(file: Path) -> Any:
    """Return Optuna's storage of all trials, whose finished ones can be read.

    Raises
    ------
    CrossferError
        If it is damaged.
    """
    storages = import_optuna().storages
    try:
        storage = storages.JournalStorage(storages.journal.JournalFileBackend(str(file)))
        for study in storage.get_all_studies():
            for trial in storage.get_all_trials(study._study_id, deepcopy=False):
                if trial.state.is_finished():
                    adapter(Trial).validate_python(trial.user_attrs["measured"])
    except OSError:
        raise
    except Exception as error:  # whatever Optuna makes of it
        raise CrossferError(
            f"{file}: damaged ({one_line(error)}); delete it to begin the trials again"
        ) from None
    return storage


def _cut_unfinished_line(file: Path) -> None:
    """Remove a journal's last line if its process was killed in it; Optuna would go on in that line."""
    content = file.read_bytes() if file.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        write_bytes(file, whole)


def _open_worker(asked: Search) -> Work:
    experiment = asked.experiment
    machine = Machine.of(experiment.device, experiment.precision, experiment.deterministic)
    datasets = open_datasets(experiment, asked.out, Progress(), checked=True)
    return _work(_trials_on(asked, datasets, machine))


def _graph(every: Iterable[Trials]) -> tuple[list[Task], dict[str, Run]]:
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


def _work(every: Mapping[str, Trials]) -> Work:
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
        every: Mapping[str, Trials],
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
        elif what == SAID:
            self.progress.said(f"{self.runs[key].label}: {value}")
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

"""The trials of one strategy: recipes from Optuna, trained and measured on validation data."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crossfer.datasets.dataset import Dataset
from crossfer.errors import CrossferError, one_line
from crossfer.evaluation.rows import Row
from crossfer.executors.graph import Emit
from crossfer.experiment.clusters import RUNS
from crossfer.experiment.config import Experiment
from crossfer.experiment.execute import execute
from crossfer.experiment.folder import folder_of, load_answers, parts_of
from crossfer.experiment.identity import Arithmetic
from crossfer.experiment.plan import Run, plan
from crossfer.machine import Machine
from crossfer.run_folder import load_run
from crossfer.selection import Lead, lead
from crossfer.strategies import starts
from crossfer.strategy import Strategy
from crossfer.validation import adapter

if TYPE_CHECKING:
    import optuna

STARTED, ENDED, FAILED = "started", "ended", "failed"
"""Events of a trial about its runs."""

Numbers = Mapping[str, int | float]
RANGES: Mapping[str, tuple[float, float]] = {
    "learning_rate": (1e-5, 1.0),
    "epochs": (1, math.inf),
    "batch_size": (8, 256),
    "weight_decay": (1e-7, 1e-1),
    "label_smoothing": (0.0, 0.3),
}
"""The tuned hyper-parameters, and where they are looked for: epochs within the budget.

All but label smoothing on a logarithmic scale.
"""


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


def equivalent_epochs(run: Run) -> float:
    """Return the cost of a run in fine-tuning-equivalent epochs, without extra passes of penalties."""
    return run.work / run.target_images


@dataclass(frozen=True)
class Search:
    """A search as plain values, which can be sent to other processes."""

    experiment: Experiment
    out: Path
    strategies: tuple[str, ...]
    trials: int
    budget: float
    seed: int


class Trials:
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
        asked: Search,
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
            self.study = import_optuna().create_study(
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
        recipe: dict[str, Any] = asdict(self.experiment.recipe(self.strategy))
        return {name: recipe[name] for name in RANGES}

    @property
    def first(self) -> dict[str, int | float]:
        """The recipe of the first trial: the default, limited to the budget."""
        return self.default | {"epochs": min(self.default["epochs"], self.most)}

    @property
    def nearest(self) -> dict[str, int | float]:
        """The recipe in the ranges that is nearest to the first trial's."""
        first = self.first
        return {name: min(max(first[name], low), high) for name, (low, high) in RANGES.items()}

    def distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """Return `RANGES` as Optuna's distributions."""
        found = import_optuna().distributions
        ranges = dict(RANGES, epochs=(1, self.most))
        return {
            name: (found.IntDistribution if isinstance(low, int) else found.FloatDistribution)(
                low, high, log=name != "label_smoothing"
            )
            for name, (low, high) in ranges.items()
        }

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
        optuna, study = import_optuna(), self.study
        waiting = optuna.trial.TrialState.WAITING
        if number == 0 and not study.get_trials(deepcopy=False, states=(waiting,)):
            # Again where the first one was interrupted.  Optuna learns from the nearest recipe in the ranges.
            study.enqueue_trial(self.nearest)
        # Seeded by the trial's number, so that an interrupted trial gets the same recipe and resumes.
        chance = int(np.random.SeedSequence([self.asked.seed, number]).generate_state(1)[0])
        study.sampler = optuna.samplers.TPESampler(seed=chance)
        trial = study.ask(self.distributions())
        recipe = trial.params if number else self.first
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
        measured_on = [self.source, *([self._target(run)] if run.target else self.targets)]
        datasets = [self.source, *self.targets]
        try:
            folder = execute(run, self.runs_folder, datasets, measured_on, self.machine, tell)
        except OSError:
            raise
        except Exception as error:
            tell(FAILED, one_line(error))
            raise CrossferError(f"{run.label} failed: {one_line(error)}") from error
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


def import_optuna() -> Any:
    """Import Optuna, which is an extra, with warnings only."""
    try:
        import optuna
        import optuna.storages.journal
    except ImportError:
        raise CrossferError("the search needs Optuna: pip install 'crossfer[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna

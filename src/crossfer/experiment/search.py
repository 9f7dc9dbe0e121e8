"""Recipes tuned on validation data, with the same budget for every strategy.

The unit of the budget is the *fine-tuning-equivalent epoch*: what it takes to train every layer on the
target's training set once.  A strategy that shows three source images beside each target image uses four in
an epoch; one that trains the last layers alone, a fraction.  Every strategy gets as many trials as every
other, and no trial may use more than the budget: how many epochs it makes of it is its own choice.

No test set is looked at: a trial is worth the mean of the source's and the target's validation accuracy.
The first trial, the recipe as it is, is kept until another is shown to be better (`crossfer.selection`).
(The networks are measured on the test sets too, as any finished run is; nothing here reads that.)
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from lightning_fabric import Fabric
from numpy.typing import NDArray
from pydantic import TypeAdapter

from crossfer.datasets.dataset import Dataset
from crossfer.errors import CrossferError, one_line
from crossfer.evaluation.intervals import subject_codes
from crossfer.evaluation.rows import Row
from crossfer.experiment.config import Experiment
from crossfer.experiment.execute import execute
from crossfer.experiment.folder import folder_of, load_answers, load_run, parts_of
from crossfer.experiment.identity import Arithmetic
from crossfer.experiment.opening import DATASETS, check_paths, open_datasets
from crossfer.experiment.plan import Run, plan
from crossfer.experiment.progress import Progress
from crossfer.experiment.run import LOCK, RUNS, alone_in, check_free
from crossfer.files import write_bytes, write_json
from crossfer.networks import check_network
from crossfer.selection import Lead, lead
from crossfer.strategies import Strategy, starts
from crossfer.training.machine import machine

if TYPE_CHECKING:
    import optuna

BUDGET = 30.0
"""Fine-tuning-equivalent epochs: a fine-tuning of 30 epochs, as the default recipe's."""

JOURNAL, RECIPES, SEARCH = "trials.journal", "recipes.yaml", "search.json"
BEGUN = (LOCK, f"{LOCK}.owner", DATASETS)
"""What the folder of a search that still prepares its data may hold."""

Numbers = Mapping[str, int | float]
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
    """Those of earlier searches in the folder too."""
    left_out: Mapping[str, float]
    """What one epoch takes, of strategies for which that is beyond the budget."""
    failed: Mapping[str, str]
    """Why, where every trial failed."""
    unit: str = "fine-tuning-equivalent epochs"


def equivalent_epochs(run: Run) -> float:
    """Return what a run costs, in fine-tuning-equivalent epochs; a penalty's own passes are not counted."""
    return run.work / run.target_images


def can_be_tuned(strategy: Strategy) -> bool:
    """Tell whether a strategy adapts by training."""
    return strategy.layers != "none" and "target" in strategy.sides


def search(
    experiment: Experiment,
    out: str | Path,
    trials: int = 20,
    budget: float = BUDGET,
    strategies: Sequence[str] = (),
    seed: int = 0,
    progress: Progress | None = None,
    on_trial: Callable[[str, int, int], None] = lambda strategy, done, total: None,
) -> Searched:
    """Tune the recipe of each strategy of an experiment on its first seed and largest fraction.

    The first trial is the recipe that the experiment has, cut to the budget.  Interrupted, the same call
    goes on where it stopped, with what it would have tried.  A trial that fails (it diverges, or needs more
    memory than there is) counts as one, and the next is tried.

    Parameters
    ----------
    experiment
        Its source, targets, strategies, recipes (where they start) and machine count.
    out
        A folder for prepared datasets, runs and trials.  Of a strategy's runs only the best is kept.
    trials
        For each strategy.
    budget
        Of each trial, in fine-tuning-equivalent epochs, for each target.
    strategies
        Only these.
    seed
        Of the search.
    progress
        Told how preparation and training go on.
    on_trial
        Told for which strategy how many of how many trials are done.

    Returns
    -------
    Searched
        The content of ``search.json``.

    Raises
    ------
    CrossferError
        If Optuna is not installed, a strategy is not one of the experiment's, what all trials start from
        cannot be trained, or every trial failed.
    OSError
        If there is no room or no permission to write: make some, and the same call goes on.
    """
    out, progress = Path(out), progress or Progress()
    if experiment.folds:
        raise CrossferError(
            "folds: a search would tune on the very images that other folds test; search without folds, and "
            "run with folds what it finds on other people"
        )
    optuna = _optuna()
    tuned = [strategy for strategy in experiment.strategies if can_be_tuned(strategy)]
    names = [strategy.name for strategy in tuned]
    if not names:
        raise CrossferError("strategies: none of them is trained on the target; nothing to tune")
    if unknown := [name for name in strategies if name not in names]:
        raise CrossferError(f"--strategy {unknown[0]}: choose among {', '.join(names)}")
    tuned = [strategy for strategy in tuned if not strategies or strategy.name in strategies]
    if not 0 < budget < math.inf:
        raise CrossferError(f"--budget {budget:g}: must be a number above 0")
    experiment = experiment.model_copy(
        update={
            "seeds": experiment.seeds[:1],
            "fractions": experiment.fractions[-1:],
            "protocols": [],
        }
    )
    check_free(out, "search", JOURNAL, BEGUN)
    check_paths(experiment)
    fabric = machine(experiment.device, experiment.precision, experiment.deterministic)
    left_out: dict[str, float] = {}
    failed: dict[str, str] = {}
    with alone_in(out):
        layers = [strategy.layers for strategy in experiment.strategies]
        check_network(experiment.model, layers, fabric, experiment.classes)
        known = _found_before(out / SEARCH)
        datasets = open_datasets(experiment, out, progress)
        storage = optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(out / JOURNAL))
        )
        for strategy in tuned:
            one = _Trials(experiment, strategy, datasets, fabric, out / RUNS, progress)
            if one.most_epochs(budget) < 1:
                least = max(map(equivalent_epochs, one.runs({"epochs": 1})))
                left_out[strategy.name] = least
                continue
            # Of other data or with another default it would be another search.
            asked = "+".join(run.key for run in one.runs(one.default))
            study = optuna.create_study(
                study_name=f"{strategy.name}, {budget:g}, {seed}, {asked}",
                storage=storage,
                direction="maximize",
                load_if_exists=True,
            )
            _optimise(study, one, trials, budget, seed, partial(on_trial, strategy.name))
            ended, best = _ended(study)[:trials], _best(study)
            if best is None:
                failed[strategy.name] = str(ended[0].why)
            else:
                known[strategy.name] = Tuned(
                    strategy.name, budget, seed, ended[0], best, tuple(ended)
                )
            _write(out, Searched(tuple(known.values()), left_out, failed))
    if failed and len(failed) + len(left_out) == len(tuned):
        why = next(iter(failed.values()))
        raise CrossferError(
            f"{', '.join(failed)}: every trial failed ({why}); mend that, and give another --seed"
        )
    return Searched(tuple(known.values()), left_out, failed)


class _Trials:
    """Trains one strategy with one recipe or another."""

    def __init__(
        self,
        experiment: Experiment,
        strategy: Strategy,
        datasets: list[Dataset],
        fabric: Fabric,
        runs_folder: Path,
        progress: Progress,
    ) -> None:
        known = {other.name: other for other in experiment.strategies}
        needed = [experiment.strategies[0].name, *starts(strategy, known), strategy.name]
        chosen = [other for other in experiment.strategies if other.name in needed]
        self.experiment = experiment.model_copy(update={"strategies": chosen})
        self.strategy, self.fabric = strategy, fabric
        self.source, *self.targets = datasets
        self.runs_folder, self.progress = runs_folder, progress

    @property
    def default(self) -> dict[str, int | float]:
        """The recipe that the experiment has, as far as it is tuned."""
        recipe = asdict(self.experiment.recipe(self.strategy))
        return {name: recipe[name] for name in TUNED}

    def start(self) -> None:
        """Train the baseline and what the strategy starts from, which no trial changes."""
        for run in self.planned(self.default):
            if run.strategy.name != self.strategy.name:
                self._execute(run)

    def planned(self, recipe: Numbers) -> list[Run]:
        """Plan the baseline, what the strategy starts from, and the strategy with a recipe."""
        name = self.strategy.name
        recipes = self.experiment.recipes
        changed = recipes | {name: recipes.get(name, {}) | dict(recipe)}
        experiment = self.experiment.model_copy(update={"recipes": changed})
        return plan(experiment, self.source, self.targets, Arithmetic.of(self.fabric))

    def runs(self, recipe: Numbers) -> list[Run]:
        """Return the strategy's own runs, one a target."""
        return [run for run in self.planned(recipe) if run.strategy.name == self.strategy.name]

    def most_epochs(self, budget: float) -> int:
        """Return how many epochs fit into the budget."""
        return int(budget / max(map(equivalent_epochs, self.runs({"epochs": 1}))))

    def measure(self, recipe: Numbers, kept: Trial | None) -> Trial:
        """Train, and return what came of it on the validation sets, over the targets, or why nothing did.

        It is kept instead of the trial that was `kept` so far if it is shown to be better
        (`crossfer.selection`).
        """
        runs = self.runs(recipe)
        tried = Trial(recipe, tuple(run.key for run in runs))
        try:
            for run in runs:
                self._execute(run)
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
        """Remove the folders of runs."""
        for key in keys:
            for folder in self.runs_folder.glob(f"*-{key}"):
                shutil.rmtree(folder)

    def _execute(self, run: Run) -> None:
        """Train and measure one run.

        Raises
        ------
        CrossferError
            If it fails: it diverged, say, or needs more memory than there is.
        OSError
            If the disk is full, say: no fault of the run.
        """
        self.progress.started(run)
        measured_on = [self.source, *([self._target(run)] if run.target else self.targets)]
        try:
            folder = execute(
                run,
                self.runs_folder,
                [self.source, *self.targets],
                measured_on,
                self.fabric,
                partial(self.progress.step, run),
            )
        except OSError:
            raise
        except Exception as error:
            why = one_line(error)
            self.progress.failed(run, why)
            raise CrossferError(f"{run.label} failed: {why}") from error
        self.progress.ended(run, folder)

    def _target(self, run: Run) -> Dataset:
        assert run.target is not None, "what is tuned trains on a target"
        return run.target.open(self.targets)

    def _accuracy(self, run: Run, dataset: Dataset) -> float:
        return 100 * float(self._right(run, dataset).mean())

    def _right(self, run: Run, dataset: Dataset) -> NDArray[np.bool_]:
        """Tell which validation images a run's network is right about.

        Recipes differ in how sure they let a network be of its answers: probabilities cannot be compared.
        """
        folder = folder_of(run, self.runs_folder)
        return load_answers(folder, parts_of(dataset), "validation", {}).right

    def _ahead(self, runs: Sequence[Run], kept: Sequence[Run]) -> Lead:
        """Return how far a trial's runs are ahead of another's, over all targets and both sides."""
        mine: dict[str, NDArray[np.bool_]] = {}
        theirs: dict[str, NDArray[np.bool_]] = {}
        subjects = {}
        for number, (run, before) in enumerate(zip(runs, kept, strict=True)):
            for dataset in (self.source, self._target(run)):
                name = f"{number}/{dataset.name}"
                rows = dataset.rows("validation")
                subjects[name] = subject_codes([dataset.subjects[row] for row in rows])
                mine[name], theirs[name] = (self._right(r, dataset) for r in (run, before))
        return lead(mine, theirs, subjects)


def _optimise(
    study: optuna.Study,
    one: _Trials,
    trials: int,
    budget: float,
    seed: int,
    on_trial: Callable[[int, int], None],
) -> None:
    """Try as many recipes as are left to try, each as if there had been no interruption."""
    optuna = _optuna()
    most, done = one.most_epochs(budget), len(_ended(study))
    if done < trials:
        one.start()
    for number in range(done, trials):
        on_trial(number, trials)
        if number == 0:
            study.enqueue_trial(one.default | {"epochs": min(one.default["epochs"], most)})
        # Drawn from the trial's own number: one that was interrupted is asked for again, and goes on.
        chance = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        study.sampler = optuna.samplers.TPESampler(seed=chance)
        trial = study.ask()
        recipe = {
            "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1.0, log=True),
            "epochs": trial.suggest_int("epochs", 1, most, log=True),
            "batch_size": trial.suggest_int("batch_size", 8, 256, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 1e-7, 1e-1, log=True),
            "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.3),
        }
        measured = one.measure(recipe, _best(study))
        trial.set_user_attr("measured", asdict(measured))
        if measured.value is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, measured.value)
        best = _best(study)
        tried = {key for trial in _ended(study) for key in trial.runs}
        one.forget(tried - set(best.runs if best else ()))
    on_trial(trials, trials)


def _ended(study: optuna.Study) -> list[Trial]:
    """Return what was measured by the trials that ended by themselves, in their order."""
    told = [trial.user_attrs["measured"] for trial in study.trials if trial.state.is_finished()]
    return TypeAdapter(list[Trial]).validate_python(told)


def _best(study: optuna.Study) -> Trial | None:
    """Return the trial that is kept so far: the last that was shown to be better than the one before."""
    return next((trial for trial in reversed(_ended(study)) if trial.kept), None)


def _found_before(file: Path) -> dict[str, Tuned]:
    """Return what earlier searches in the folder found, by strategy."""
    try:
        searched = TypeAdapter(Searched).validate_json(file.read_bytes())
    except (OSError, ValueError):  # there was none, or somebody edited it
        return {}
    return {one.name: one for one in searched.strategies}


def _write(out: Path, found: Searched) -> None:
    recipes = {one.name: dict(one.best.recipe) for one in found.strategies}
    write_json(out / SEARCH, asdict(found))
    write_bytes(out / RECIPES, yaml.safe_dump(recipes, sort_keys=False).encode("utf-8"))


def _optuna() -> Any:
    try:
        import optuna
        import optuna.storages.journal
    except ImportError:
        raise CrossferError("the search needs Optuna: pip install 'crossfer[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna

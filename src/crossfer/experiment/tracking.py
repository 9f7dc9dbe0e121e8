"""Log an experiment to MLflow or TensorBoard, from run folders and results.

Logging does not affect results.  If it fails, that is reported once, and the runs continue.  An experiment
that is started again logs what is missing.
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from crossfer.errors import CrossferError, one_line
from crossfer.evaluation.rows import Interval, Result, Results, RunFacts
from crossfer.experiment.folder import BUNDLE_FILES
from crossfer.experiment.results import CHANGES, RESULTS
from crossfer.run_folder import load_run, read_history
from crossfer.terms import SIDES

Kind = Literal["mlflow", "tensorboard"]
DATABASE, ARTIFACTS, TENSORBOARD = "mlflow.db", "mlartifacts", "tensorboard"
"""In the experiment's folder: MLflow's store, unless ``MLFLOW_TRACKING_URI`` is set; TensorBoard's logs."""

KEY, LOGGED = "crossfer.key", "crossfer.logged"
"""Tags of a run in MLflow: its key, and whether it is logged completely."""


class Tracker(Protocol):
    """Logs to one library; any exception disables it."""

    def log_run(self, folder: Path) -> None:
        """Log a finished run, unless it is logged."""

    def log_results(self, results: Results) -> None:
        """Log the results of the experiment."""


class Tracking:
    """Several trackers; one that fails is disabled.

    Parameters
    ----------
    trackers
        Trackers by name.
    trouble
        Called with a message when a tracker is disabled.
    """

    def __init__(self, trackers: Mapping[Kind, Tracker], trouble: Callable[[str], None]) -> None:
        self.trackers, self.trouble = dict(trackers), trouble

    def log_run(self, folder: Path) -> None:
        """Log a finished run."""
        self._each(lambda tracker: tracker.log_run(folder))

    def log_results(self, results: Results) -> None:
        """Log the results of the experiment."""
        self._each(lambda tracker: tracker.log_results(results))

    def _each(self, log: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                log(tracker)
            except Exception as error:  # whatever the library or its server may do
                del self.trackers[name]
                self.trouble(f"tracking: {name} is disabled from now on: {one_line(error)}")


def tracking_to(
    kinds: Sequence[Kind], name: str, out: Path, trouble: Callable[[str], None]
) -> Tracking:
    """Prepare the logging of an experiment.

    Parameters
    ----------
    kinds
        The libraries; may be empty.
    name
        Name of the experiment.
    out
        Folder of the experiment.
    trouble
        As for `Tracking`.

    Raises
    ------
    CrossferError
        If a library is not installed.
    """
    make: dict[Kind, Callable[[str, Path], Tracker]] = {
        "mlflow": MLflow,
        "tensorboard": TensorBoard,
    }
    return Tracking({kind: make[kind](name, out) for kind in kinds}, trouble)


class TensorBoard:
    """The curves of every run: ``tensorboard --logdir OUT/tensorboard``."""

    def __init__(self, name: str, out: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise _missing("tensorboard", "TensorBoard") from None
        self.folder, self.writer = out / TENSORBOARD, SummaryWriter

    def log_run(self, folder: Path) -> None:
        """Log the curves of a run."""
        place = self.folder / folder.name
        if place.is_dir():
            return
        beside = place.with_name(f".{folder.name}.partial")
        with self.writer(str(beside)) as writer:
            for step, name, value in curves(folder):
                writer.add_scalar(name, value, step)
        beside.rename(place)

    def log_results(self, results: Results) -> None:
        """Log nothing: TensorBoard gets only curves."""


class MLflow:
    """Parameters, curves, metrics with intervals and the bundle of every run, and the results of all."""

    def __init__(self, name: str, out: Path) -> None:
        try:
            from mlflow.entities import Metric, Param
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise _missing("mlflow", "MLflow") from None
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        # An unreachable server should delay a run by seconds, not minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        self.name, self.out, self.metric, self.param = name, out.resolve(), Metric, Param
        self.store = os.environ.get("MLFLOW_TRACKING_URI")
        self._open: Callable[[str], Any] = MlflowClient
        self._client: Any = None

    def log_run(self, folder: Path) -> None:
        """Log a run, unless it is logged."""
        record = load_run(folder)
        run, logged = self._run(record.key, record.label)
        if logged:
            return
        self._log(run, curves(folder), parameters(record))
        for name in BUNDLE_FILES:
            self.client.log_artifact(run, str(folder / name), "bundle")
        self._end(run)

    def log_results(self, results: Results) -> None:
        """Log the metrics of every run, and the means over seeds as a run of their own."""
        for key in dict.fromkeys(key for row in results.results for key in row.runs):
            run, _ = self._run(key, results.run(key).label)
            rows = [row for row in results.results if key in row.runs]
            self._log(run, ((0, name, v) for row in rows for name, v in metrics(row)))
        run, _ = self._run(RESULTS, "means over seeds")
        self._log(
            run,
            (
                (0, f"{' '.join(filter(None, [row.strategy, _share(row)]))}/{name}", value)
                for row in results.summary
                for name, value in metrics(row)
            ),
        )
        self.client.log_artifact(run, str(self.out / RESULTS))
        self._end(run)

    @property
    def client(self) -> Any:
        """MLflow's client, opened on first use."""
        if self._client is None:
            self._client = self._open(self.store or f"sqlite:///{self.out / DATABASE}")
        return self._client

    def _run(self, key: str, label: str) -> tuple[str, bool]:
        """Return the MLflow id of a run, created if needed, and whether it is logged completely."""
        known = self.client.get_experiment_by_name(self.name)
        place = None if self.store else (self.out / ARTIFACTS).as_uri()
        experiment = (
            known.experiment_id if known else self.client.create_experiment(self.name, place)
        )
        found = self.client.search_runs([experiment], f"tags.`{KEY}` = '{key}'")
        run = (
            found[0]
            if found
            else self.client.create_run(experiment, run_name=label, tags={KEY: key})
        )
        return run.info.run_id, LOGGED in run.data.tags

    def _log(
        self,
        run: str,
        measured: Iterator[tuple[int, str, float]],
        asked: Mapping[str, str] | None = None,
    ) -> None:
        now = int(time.time() * 1000)
        numbers = [self.metric(_name(n), value, now, step) for step, n, value in measured]
        params = [self.param(_name(n), value[:500]) for n, value in (asked or {}).items()]
        # MLflow takes 1,000 metrics at a time, and 100 parameters.
        for start in range(0, len(numbers), 500):
            self.client.log_batch(run, metrics=numbers[start : start + 500])
        for start in range(0, len(params), 100):
            self.client.log_batch(run, params=params[start : start + 100])

    def _end(self, run: str) -> None:
        self.client.set_tag(run, LOGGED, "all")
        self.client.set_terminated(run)


def curves(folder: Path) -> Iterator[tuple[int, str, float]]:
    """Yield epoch (or number of the merge), name and value for a run's history."""
    for number, row in enumerate(read_history(folder)):
        step = int(float(row.pop("epoch", number)))
        for name, text in row.items():
            if text and math.isfinite(value := float(text)):
                yield step, name, value


def parameters(record: RunFacts) -> dict[str, str]:
    """Return the parameters and sizes of a run, with dotted names as in a configuration."""
    counted = ("training_images", "parameters", "trained_parameters", "kept_epoch")
    return {
        **_flat(record.identity),
        "strategy.name": record.strategy,
        **{name: str(getattr(record, name)) for name in counted},
        **{f"machine.{name}": str(value) for name, value in record.machine.items()},
        **{f"versions.{name}": str(value) for name, value in record.versions.items()},
    }


def metrics(row: Result) -> Iterator[tuple[str, float]]:
    """Yield name and value of a row's test metrics and of the ends of their 95 % intervals."""
    for side in SIDES:
        test, where = row.on(side).test, f"{row.target}/{side}"
        yield from _with_interval(f"{where}/accuracy", test.accuracy, test.interval)
        yield f"{where}/balanced_accuracy", test.balanced_accuracy
        yield f"{where}/macro_f1", test.macro_f1
        yield f"{where}/calibration_error", test.calibration_error
        own = row.change(side)
        yield from _with_interval(f"{row.target}/{CHANGES[side]}", own.points, own.interval)
    yield f"{row.target}/seconds", row.cost.seconds


def _with_interval(
    name: str, value: float, interval: Interval | None
) -> Iterator[tuple[str, float]]:
    yield name, value
    if interval:
        yield f"{name}.low", interval[0]
        yield f"{name}.high", interval[1]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = str(value)
    return found


def _share(row: Result) -> str:
    return "" if row.fraction is None else f"{row.fraction:g}"


def _name(name: str) -> str:
    """Return a name with only the characters that MLflow allows."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def _missing(kind: Kind, called: str) -> CrossferError:
    return CrossferError(f"tracking: {kind}: needs {called}: pip install 'crossfer[tracking]'")

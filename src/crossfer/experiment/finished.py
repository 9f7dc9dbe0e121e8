"""Read a finished experiment: results, datasets, predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from crossfer.datasets.dataset import Dataset, is_prepared, open_dataset
from crossfer.datasets.record import Split
from crossfer.datasets.union import unite
from crossfer.errors import CrossferError
from crossfer.evaluation.answers import Answers
from crossfer.evaluation.evidence import Evidence, Key
from crossfer.evaluation.gate import Groups
from crossfer.evaluation.intervals import subject_codes
from crossfer.evaluation.rows import DatasetFacts, Metrics, Result, Results, RunFacts
from crossfer.experiment.config import Experiment, check_experiment
from crossfer.experiment.folder import Part, placed, said_by_folds
from crossfer.experiment.opening import DATASETS, with_validation
from crossfer.experiment.results import RESULTS
from crossfer.experiment.run import load_results
from crossfer.run_folder import is_finished, load_run
from crossfer.terms import BL, SIDES, Side


@dataclass(frozen=True)
class Finished:
    """An experiment's folder and its results.

    Parameters
    ----------
    out
        The folder.
    results
        From `crossfer.experiment.load_results`.
    """

    out: Path
    results: Results

    @cached_property
    def experiment(self) -> Experiment:
        """The configuration of the results."""
        return check_experiment(dict(self.results.config), str(self.out / RESULTS))

    @cached_property
    def datasets(self) -> list[Dataset]:
        """The source and each target.

        Raises
        ------
        CrossferError
            If one is missing or was changed.
        """
        experiment = self.experiment
        here = [path for path in sorted((self.out / DATASETS).glob("*")) if is_prepared(path)]
        alone = [dataset for dataset in self.results.datasets if not dataset.parts]
        source, *targets = (
            _open([experiment.path(config), *here], facts).with_classes(experiment.classes)
            for config, facts in zip((experiment.source, *experiment.targets), alone, strict=True)
        )
        return [with_validation(source) if experiment.memory else source, *targets]

    def said(self, row: Result, side: Side, split: Split) -> tuple[Answers, ...]:
        """Return the answers of a row's networks on a split; the datasets are not needed.

        See `crossfer.experiment.folder.said_by_folds`.

        Raises
        ------
        CrossferError
            If its predictions cannot be read.
        """
        leakage = self.results.leakage if split == "test" else None
        folders = [self.out / self.results.run(run).folder for run in row.runs]
        names = self.results.new_classes if side == "source" else ()
        new = [self.results.classes.index(name) for name in names]
        folds, dropped = self._folds(self._on(row, side)), leakage.dropped if leakage else {}
        return said_by_folds(folders, folds, split, dropped, new)

    def evidence(self, rows: Sequence[Result]) -> Evidence:
        """Return the answers of the networks of some rows, and of their baselines, on the test sets.

        Subjects are read from the datasets, which are needed if they have subjects.

        Raises
        ------
        CrossferError
            If predictions cannot be read, or a needed dataset is missing.
        """
        answers: dict[tuple[Key, Side], Sequence[Answers]] = {}
        wanted = {(row.target, name) for row in rows for name in (BL, row.strategy)}
        for one in self.results.results:
            if (one.target, one.strategy) in wanted:
                key = (one.target, one.fraction, one.strategy, one.seeds[0])
                for side in SIDES:
                    answers[key, side] = self.said(one, side, "test")
        people = {
            (row.target, side): self._column(row, side, "subject")
            if self._on(row, side).test_subjects
            else None
            for row in rows
            for side in SIDES
        }
        codes = {
            where: None if who is None else subject_codes(who) for where, who in people.items()
        }
        return Evidence(answers, codes)

    def groups(self, row: Result, column: str) -> Groups:
        """Return a column of the sample tables, for each test image of a row's source and target.

        Raises
        ------
        CrossferError
            If neither has the column, or a dataset is missing.
        """
        values = {side: self._column(row, side, column) for side in SIDES}
        if all(found is None for found in values.values()):
            known = sorted({name for dataset in self.datasets for name in dataset.columns})
            raise CrossferError(
                f"--by {column}: no such column in {self.results.source.name} or {row.target}; "
                f"choose among {', '.join(known)}"
            )
        return {
            side: found and ["not known" if value is None else str(value) for value in found]
            for side, found in values.items()
        }

    def dataset(self, facts: DatasetFacts) -> Dataset:
        """Open a dataset, or the union that it is.

        Raises
        ------
        CrossferError
            If one is missing or was changed.
        """
        opened = {dataset.name: dataset for dataset in self.datasets}
        return unite([opened[part] for part in facts.parts or (facts.name,)])

    def _on(self, row: Result, side: Side) -> DatasetFacts:
        facts = {dataset.name: dataset for dataset in self.results.datasets}
        return self.results.source if side == "source" else facts[row.target]

    def _folds(self, dataset: DatasetFacts) -> list[list[Part]]:
        """Return the parts of a dataset for each of its folds."""
        facts = {one.name: one for one in self.results.datasets}
        parts = [facts[name] for name in dataset.parts or (dataset.name,)]
        found = placed(
            (Part(part.name, part.fingerprint, self._labels(part)) for part in parts),
            (part.images for part in parts),
        )
        if dataset.folds:
            return [[found[0]._replace(fingerprint=fold)] for fold in dataset.folds]
        return [found]

    def _labels(self, dataset: DatasetFacts) -> list[int]:
        """Return the classes of a dataset as indices."""
        return [self.results.classes.index(name) for name in dataset.classes]

    def _column(self, row: Result, side: Side, name: str) -> list[Any] | None:
        """Return a column of the sample table for each test image; None if there is no such column."""
        facts = self._on(row, side)
        of_one_seed = row.runs[: len(row.runs) // len(row.seeds)]
        rows = self.said(replace(row, runs=of_one_seed), side, "test")[0].rows
        return self.dataset(facts).column(name, rows)


def results_of(run: Path) -> tuple[Results, RunFacts] | None:
    """Return the results of the experiment that contains a run, and the run's facts; None if none does."""
    out = run.resolve().parent.parent
    if not (is_finished(run) and (out / RESULTS).is_file()):
        return None
    return load_results(out), load_run(run)


def tested(results: Results, key: str) -> list[tuple[DatasetFacts, Metrics]]:
    """Return the datasets on whose test sets a run was measured, with the measurements."""
    facts = {dataset.name: dataset for dataset in results.datasets}
    found: dict[str, tuple[DatasetFacts, Metrics]] = {}
    for row in results.results:
        if row.runs == (key,):
            for name, side in ((results.source.name, row.on_source), (row.target, row.on_target)):
                found.setdefault(name, (facts[name], side.test))
    return list(found.values())


def _open(paths: Sequence[Path], facts: DatasetFacts) -> Dataset:
    for path in filter(is_prepared, paths):
        dataset = open_dataset(path)
        if dataset.fingerprint == facts.fingerprint:
            dataset.check()
            return dataset.called(facts.name)
    tried = " or ".join(sorted({str(path.absolute()) for path in paths}))
    raise CrossferError(
        f"{facts.name}: the data that were measured (fingerprint {facts.fingerprint[:16]}) are not at "
        f"{tried}; restore them, or run this command where the experiment was run"
    )

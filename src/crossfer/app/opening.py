"""Open what the user names (models, experiments, comparisons) as pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crossfer.app.pages import Page
from crossfer.app.try_page import TriedModel, try_page
from crossfer.deploy import load
from crossfer.errors import CrossferError
from crossfer.framing import SMALLEST
from crossfer.progress import OnProgress, silent

if TYPE_CHECKING:
    from crossfer.datasets import Dataset

RESULTS = "results.json"
"""What an experiment's folder is known by."""
COMPARED = 20
"""How often one face is timed for a comparison whose latency is not shown: the least."""


def pages_of(
    paths: Sequence[Path],
    data: Sequence[Path] = (),
    smallest: float = SMALLEST,
    progress: OnProgress = silent,
) -> list[Page]:
    """Open what the user names.

    Parameters
    ----------
    paths
        Classifiers as `crossfer.deploy.models.open_model` takes, the old one first; or one finished
        experiment; or the JSON of one comparison.
    data
        Prepared datasets: of two classifiers, what changed on their test images is shown; of a comparison,
        those that it was made on.
    smallest
        Side of the smallest face to look for in a photograph, as for `crossfer.datasets.detector.Detector`.
    progress
        Told how many steps of a comparison of how many are done.

    Returns
    -------
    list of Page
        *Try* for classifiers and experiments, *Compare* where there is something to compare.

    Raises
    ------
    CrossferError
        If something cannot be opened, or the paths and data do not go together.
    """
    kinds = [_kind(path) for path in paths]
    if len(paths) > 1 and (other := next((k for k in kinds if k != "model"), None)):
        raise CrossferError(f"{paths[kinds.index(other)]}: {other}; name it alone")
    if kinds == ["an experiment"]:
        if data:
            raise CrossferError(
                f"--data: {paths[0]} is an experiment, which has its own datasets; leave --data out"
            )
        return _of_experiment(paths[0], smallest)
    if kinds == ["a comparison"]:
        if smallest != SMALLEST:
            raise CrossferError(
                f"--smallest: {paths[0]} is a comparison, and no face is looked for; leave it out"
            )
        return [_of_record(paths[0], data)]
    if data and len(paths) != 2:
        raise CrossferError(f"--data: needs two classifiers, the old one first; {len(paths)} given")
    shown = [try_page([_tried(str(path), path) for path in paths], smallest)]
    if data:
        shown.append(_compared(paths[0], paths[1], data, progress))
    return shown


def _kind(path: Path) -> str:
    if (path / RESULTS).is_file():
        return "an experiment"
    is_comparison = path.suffix == ".json" and path.is_file() and b'"comparison"' in _head(path)
    return "a comparison" if is_comparison else "model"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(200)


def _tried(name: str, path: Path) -> TriedModel:
    if path.is_dir():  # of an exported one PyTorch is not needed
        return TriedModel(name, load(path).engine)
    from crossfer.deploy.checks import unchecked
    from crossfer.deploy.models import open_model

    model = open_model(path)
    return TriedModel(name, model.engine, (*model.notes, *unchecked(model)))


def _of_experiment(folder: Path, smallest: float) -> list[Page]:
    """Show what the experiment recommends, for its first target, beside its baseline."""
    from crossfer.app.compare_page import compare_page
    from crossfer.app.flips import of_experiment
    from crossfer.experiment import load_results
    from crossfer.experiment.finished import Finished
    from crossfer.terms import BL

    results = load_results(folder)
    finished = Finished(folder, results)
    runs = {
        f"{row.strategy} (seed {row.seeds[0]})": row.runs[0]
        for choice in results.recommendations[:1]
        for row in results.results
        if row.target == choice.target
        and row.seeds == (choice.seed,)
        and (row.strategy == BL or row.runs[0] == choice.run)
    }
    candidates = [_tried(name, folder / results.run(run).folder) for name, run in runs.items()]
    shown = [try_page(candidates, smallest)] if candidates else []
    choices = of_experiment(finished)
    return [*shown, compare_page(choices)] if choices else shown


def _of_record(file: Path, data: Sequence[Path]) -> Page:
    from crossfer.app.compare_page import compare_page
    from crossfer.app.flips import of_record
    from crossfer.deploy.compare import read

    return compare_page(of_record(read(file), _datasets(data)))


def _compared(old: Path, new: Path, data: Sequence[Path], progress: OnProgress) -> Page:
    from crossfer.app.compare_page import compare_page
    from crossfer.app.flips import of_comparison
    from crossfer.deploy.compare import CompareOptions, compare
    from crossfer.deploy.models import open_model

    pairs = [(dataset, dataset) for dataset in _datasets(data)]
    found = compare(
        open_model(old), open_model(new), pairs, CompareOptions(rounds=COMPARED), progress
    )
    return compare_page(of_comparison(found))


def _datasets(folders: Sequence[Path]) -> list[Dataset]:
    from crossfer.datasets import open_dataset

    return [open_dataset(folder).check() for folder in folders]

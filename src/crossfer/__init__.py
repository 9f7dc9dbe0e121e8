"""Update a facial-expression model on new faces without making it forget, with reliable measurements.

Examples
--------
The study on your own faces, in a dozen lines:

>>> import crossfer
>>> crossfer.prepare("raw/fer2013.csv", "data/fer2013")  # doctest: +SKIP
>>> crossfer.prepare("raw/jaffe", "data/jaffe")  # doctest: +SKIP
>>> experiment = crossfer.Experiment(  # doctest: +SKIP
...     name="my faces",
...     source="data/fer2013",
...     targets=["data/jaffe"],
...     strategies=["FC", "FC+CL", "RE", "FU"],
...     recipes={"default": {"epochs": 10}},
... )
>>> results = crossfer.run_experiment(experiment, "runs/my-faces")  # doctest: +SKIP
>>> crossfer.write_report(results, "runs/my-faces")  # doctest: +SKIP
>>> results.recommendations  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crossfer.extras import needed

if TYPE_CHECKING:
    __version__: str
    from crossfer.adaptation import adapt
    from crossfer.classes import FER7, ClassSet
    from crossfer.datasets import (
        READERS,
        Dataset,
        Preparation,
        in_memory,
        open_dataset,
        prepare,
        write_look,
    )
    from crossfer.deploy import load
    from crossfer.errors import CrossferError
    from crossfer.experiment import Experiment, load_experiment, load_results, run_experiment
    from crossfer.machine import Machine
    from crossfer.networks import Classifier, study_cnn
    from crossfer.report import write_report
    from crossfer.strategies import STRATEGIES
    from crossfer.strategy import Strategy
    from crossfer.training import Augmentation, Faces, Recipe, predict, train

_HOMES = {
    "crossfer.adaptation": ("adapt",),
    "crossfer.datasets": (
        "READERS",
        "Dataset",
        "open_dataset",
        "Preparation",
        "in_memory",
        "prepare",
        "write_look",
    ),
    "crossfer.deploy": ("load",),
    "crossfer.classes": ("FER7", "ClassSet"),
    "crossfer.errors": ("CrossferError",),
    "crossfer.experiment": ("Experiment", "load_experiment", "load_results", "run_experiment"),
    "crossfer.networks": ("Classifier", "study_cnn"),
    "crossfer.machine": ("Machine",),
    "crossfer.report": ("write_report",),
    "crossfer.strategies": ("STRATEGIES",),
    "crossfer.strategy": ("Strategy",),
    "crossfer.training": ("Augmentation", "Faces", "Recipe", "predict", "train"),
}
"""The public names of each module."""

__all__ = [
    "FER7",
    "ClassSet",
    "READERS",
    "STRATEGIES",
    "Augmentation",
    "Classifier",
    "CrossferError",
    "Dataset",
    "Experiment",
    "Faces",
    "Machine",
    "Preparation",
    "Recipe",
    "Strategy",
    "adapt",
    "in_memory",
    "load",
    "load_experiment",
    "load_results",
    "open_dataset",
    "predict",
    "prepare",
    "run_experiment",
    "study_cnn",
    "train",
    "write_look",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import crossfer`` is quick."""
    if name == "__version__":
        from importlib.metadata import version

        return version("crossfer")
    for module, names in _HOMES.items():
        if name in names:
            try:
                return getattr(import_module(module), name)
            except ModuleNotFoundError as error:
                why = needed(error)
                if why is None:
                    raise
                raise ModuleNotFoundError(why, name=error.name) from None
    raise AttributeError(f"module 'crossfer' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the names that a shell completes, also before they are used."""
    return [*globals(), *__all__]

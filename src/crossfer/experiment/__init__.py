"""Configuration → the list of runs → results; resumable."""

from crossfer.experiment.config import Experiment, check_experiment, load_experiment
from crossfer.experiment.run import Progress, load_results, run_experiment

__all__ = [
    "Experiment",
    "Progress",
    "check_experiment",
    "load_experiment",
    "load_results",
    "run_experiment",
]

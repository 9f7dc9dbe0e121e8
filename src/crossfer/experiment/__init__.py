"""Experiments: from a configuration to runs and results, resumable."""

from crossfer.experiment.config import Experiment, check_experiment, load_experiment
from crossfer.experiment.progress import Progress
from crossfer.experiment.run import load_results, run_experiment
from crossfer.experiment.search import search
from crossfer.experiment.verify import Verdict, verify

__all__ = [
    "Experiment",
    "Progress",
    "Verdict",
    "check_experiment",
    "load_experiment",
    "load_results",
    "run_experiment",
    "search",
    "verify",
]

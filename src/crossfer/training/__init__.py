"""The one training loop, what it eats, and what it leaves on disk."""

from crossfer.networks.preprocessing import normalise
from crossfer.training.batches import Faces, Mixture
from crossfer.training.loss import Objective
from crossfer.training.prediction import features, predict
from crossfer.training.recipe import Augmentation, Recipe
from crossfer.training.specialised import specialised
from crossfer.training.trainer import Misfit, State, Term, Trained, train

__all__ = [
    "Augmentation",
    "Faces",
    "Misfit",
    "Mixture",
    "Objective",
    "Recipe",
    "State",
    "Term",
    "Trained",
    "features",
    "normalise",
    "predict",
    "specialised",
    "train",
]

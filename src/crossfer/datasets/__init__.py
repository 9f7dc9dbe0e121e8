"""From raw photographs to prepared datasets."""

from crossfer.datasets.dataset import Dataset, open_dataset
from crossfer.datasets.look import write_look
from crossfer.datasets.preparation import Preparation
from crossfer.datasets.prepare import prepare
from crossfer.datasets.readers import READERS
from crossfer.datasets.readers.in_memory import in_memory
from crossfer.datasets.record import SPLITS

__all__ = [
    "READERS",
    "SPLITS",
    "Dataset",
    "Preparation",
    "in_memory",
    "open_dataset",
    "prepare",
    "write_look",
]

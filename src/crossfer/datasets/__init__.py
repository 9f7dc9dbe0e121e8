"""From raw photographs to prepared datasets."""

from crossfer.datasets.dataset import Dataset, open_dataset
from crossfer.datasets.prepare import Preparation, prepare
from crossfer.datasets.readers import READERS
from crossfer.datasets.record import SPLITS

__all__ = ["READERS", "SPLITS", "Dataset", "Preparation", "open_dataset", "prepare"]

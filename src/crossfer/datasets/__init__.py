"""From raw photographs to prepared datasets."""

from crossfer.datasets.dataset import Dataset, open_dataset
from crossfer.datasets.prepare import prepare
from crossfer.datasets.readers import READERS
from crossfer.datasets.record import SPLITS

__all__ = ["READERS", "SPLITS", "Dataset", "open_dataset", "prepare"]

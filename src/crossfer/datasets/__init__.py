"""From raw photographs to prepared datasets.

The light install has no PyArrow, hence no prepared datasets; the modules that find faces need none.
"""

try:
    from crossfer.datasets.dataset import Dataset, open_dataset
    from crossfer.datasets.look import write_look
    from crossfer.datasets.prepare import Preparation, prepare
    from crossfer.datasets.readers import READERS
    from crossfer.datasets.readers.in_memory import in_memory
    from crossfer.datasets.record import SPLITS
except ModuleNotFoundError as error:
    if error.name not in ("pyarrow", "pydantic", "jinja2"):
        raise

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

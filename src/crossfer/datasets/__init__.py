"""From raw photographs to prepared datasets.

The light install has no PyArrow, hence no prepared datasets; the modules that find faces need none.
"""

from typing import NoReturn

try:
    from crossfer.datasets.dataset import Dataset, open_dataset
    from crossfer.datasets.look import write_look
    from crossfer.datasets.preparation import Preparation
    from crossfer.datasets.prepare import prepare
    from crossfer.datasets.readers import READERS
    from crossfer.datasets.readers.in_memory import in_memory
    from crossfer.datasets.record import SPLITS
except ModuleNotFoundError as error:
    if error.name not in ("pyarrow", "pydantic", "jinja2"):
        raise
    _missing = error.name

    def __getattr__(name: str) -> NoReturn:
        if name in __all__:
            why = f"crossfer.datasets.{name} needs {_missing}: pip install 'crossfer[train]'"
            raise ModuleNotFoundError(why, name=_missing)
        raise AttributeError(f"module 'crossfer.datasets' has no attribute {name!r}")


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

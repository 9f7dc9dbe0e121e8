"""The order in which faces are shown.  Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from crossfer.errors import CrossferError
from crossfer.evaluation.estimate import negative_entropy

Order = Literal["uncertainty", "balance", "files"]
ORDERS: tuple[Order, ...] = get_args(Order)


def check_order(order: str) -> Order:
    """Return an order.

    Raises
    ------
    CrossferError
        If there is no such order.
    """
    for known in ORDERS:
        if order == known:
            return known
    raise CrossferError(f"--order {order}: choose among {', '.join(ORDERS)}")


def next_face(
    left: Mapping[str, Sequence[float]], order: Order, counts: Sequence[int]
) -> str | None:
    """Choose the next face.

    Parameters
    ----------
    left
        The faces that wait, as they come, with the model's probabilities.
    order
        ``uncertainty``: the face of the highest entropy (uncertainty sampling: Settles, Active Learning
        Literature Survey, 2009, section 3.1).  ``balance``: of the class with the fewest labels so far that
        the model holds to be the most probable one of any waiting face, the face that is surest to be of it;
        it fills rare classes first.  ``files``: as they come.
    counts
        Labels given so far, by class.

    Returns
    -------
    str or None
        ``None`` where none waits.  Of equals, the first comes first.
    """
    if not left:
        return None
    faces = list(left)
    if order == "files":
        return faces[0]
    probabilities = np.array(list(left.values()), np.float64)
    if order == "uncertainty":
        return faces[negative_entropy(probabilities).argmin()]
    best = probabilities.argmax(1)
    rarest = min(set(best.tolist()), key=lambda label: (counts[label], label))
    return faces[np.where(best == rarest, probabilities[:, rarest], -1).argmax()]

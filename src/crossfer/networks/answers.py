"""Extract the logits from a network's output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def logits_in(answer: Any, answers: int) -> Tensor:
    """Return the logits in what a network answers with.

    Parameters
    ----------
    answer
        A tensor; or a tuple, list, mapping or output object with one in it, perhaps among others: the
        ``logits`` if it has such, otherwise the first float tensor (N, answers).
    answers
        How many outputs the network has.

    Raises
    ------
    TypeError
        If there are no logits in it.
    """
    return _found(answer, answers)[0]


def place_of_logits(answer: Any, answers: int) -> str:
    """Say where in a network's answer its logits are: empty where they are all of it, or as ``[0]``."""
    return _found(answer, answers)[1]


def _found(answer: Any, answers: int) -> tuple[Tensor, str]:
    if isinstance(answer, Tensor):
        return answer, ""
    if isinstance(named := getattr(answer, "logits", None), Tensor):
        return named, ".logits"
    parts: dict[str, Any] = {}
    if isinstance(answer, Mapping):
        parts = {f"[{key!r}]": answer[key] for key in sorted(answer, key=lambda k: k != "logits")}
    elif isinstance(answer, (tuple, list)):
        parts = {f"[{index}]": part for index, part in enumerate(answer)}
    for place, part in parts.items():
        if isinstance(part, Tensor) and part.is_floating_point() and part.shape[1:] == (answers,):
            return part, place
    kinds = ", ".join(_described(part) for part in parts.values()) or type(answer).__name__
    raise TypeError(f"returns {kinds}, without a tensor of logits (N, {answers})")


def _described(part: Any) -> str:
    return f"a tensor {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__

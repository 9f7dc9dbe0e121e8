"""Extract the logits from a network's output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def logits_in(answer: Any, answers: int) -> Tensor:
    """Return the logits in a network's output.

    Parameters
    ----------
    answer
        A tensor; or a tuple, list, mapping or output object that contains one: its ``logits`` if it has that
        name, otherwise the first float tensor (N, answers).
    answers
        Number of outputs of the network.

    Raises
    ------
    TypeError
        If it contains no logits.
    """
    return _found(answer, answers)[0]


def place_of_logits(answer: Any, answers: int) -> str:
    """Return where the logits are in a network's output, e.g. ``[0]``; empty if they are the output."""
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

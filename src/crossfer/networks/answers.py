"""Extract the logits from a network's output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def find_logits(answer: Any, answers: int) -> tuple[Tensor, str]:
    """Return the logits in a network's output, and where they are in it.

    Parameters
    ----------
    answer
        A tensor; or a tuple, list, mapping or output object that contains one: its ``logits`` if it has that
        name, otherwise the first float tensor (N, answers).
    answers
        Number of outputs of the network.

    Returns
    -------
    logits : Tensor
    place : str
        E.g. ``[0]`` or ``.logits``; empty if they are the output itself.

    Raises
    ------
    TypeError
        If it contains no logits.
    """
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

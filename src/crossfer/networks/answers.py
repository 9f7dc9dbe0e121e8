"""Extract the logits from a network's output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from crossfer.errors import CrossferError, one_line


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


def problem_of(answer: Any, answers: int) -> str | None:
    """Return what is wrong with a network's output for two faces; None if it contains their logits."""
    try:
        logits, _ = find_logits(answer, answers)
    except TypeError as error:
        return str(error)
    if logits.shape != (2, answers):
        return (
            f"returns {tuple(logits.shape)} for two faces, not (2, {answers}); list its outputs in "
            "model.classes"
        )
    if not bool(logits.isfinite().all()):
        return "returns NaN or infinity; a weight or a running statistic is damaged"
    if are_probabilities(logits):
        return "returns probabilities; it must return logits, the values before the softmax"
    return None


def failed_on(faces: Tensor, name: str, error: Exception) -> CrossferError:
    """Return the error of a network of this name that fails on faces, float (N, C, H, W)."""
    shape = "×".join(map(str, faces.shape[1:]))
    return CrossferError(f"model.input: {name} fails on faces of {shape}: {one_line(error)}")


def are_probabilities(answers: Tensor) -> bool:
    """Tell whether rows are probabilities: not negative, with a sum of 1."""
    sums = answers.float().sum(-1)
    return bool((answers >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-2)


def _described(part: Any) -> str:
    return f"a tensor {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__

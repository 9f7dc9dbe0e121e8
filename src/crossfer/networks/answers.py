"""Extract the logits from a network's output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
            f"returns {tuple(logits.shape)} for two faces, not (2, {answers}); "
            f"{_remedy(logits, answers)}"
        )
    if not bool(logits.isfinite().all()):
        return "returns NaN or infinity; a weight or a running statistic is damaged"
    if are_probabilities(logits):
        return "returns probabilities; it must return logits, the values before the softmax"
    return None


def _remedy(logits: Tensor, answers: int) -> str:
    """Say what to do about an output of another shape for two faces."""
    if logits.numel() == 2 * answers:
        return "have it flatten them: .flatten(1)"
    if answers == 2 and logits.numel() == 2 and logits.is_floating_point():
        return (
            "for one logit x return two, torch.cat([torch.zeros_like(x), x], 1), of which x is that of the "
            "second class"
        )
    if logits.ndim < 2:
        return "it must return the logits of all classes, not the most probable class (argmax)"
    if logits.ndim == 2:
        return f"list its {logits.shape[1]} outputs in model.classes, in its order"
    return "it must return one row of logits for a face"


def failed_on(faces: Tensor, name: str, error: Exception) -> CrossferError:
    """Return the error of a network of this name that fails on faces, float (N, C, H, W)."""
    shape = "×".join(map(str, faces.shape[1:]))
    return CrossferError(f"model.input: {name} fails on faces of {shape}: {one_line(error)}")


def are_probabilities(answers: Tensor) -> bool:
    """Tell whether rows are probabilities, or percentages: not negative, with a sum of 1, or of 100."""
    sums = answers.float().sum(-1)
    found = ((sums - whole).abs().max() <= whole * 1e-2 for whole in (1, 100))
    return bool((answers >= 0).all()) and any(found)


def _described(part: Any) -> str:
    return f"a tensor {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__

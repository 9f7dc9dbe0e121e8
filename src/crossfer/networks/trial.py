"""A network is tried before anything runs: what does not fit is said in one line."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from crossfer.classes import FER7
from crossfer.errors import CrossferError, one_line
from crossfer.networks.answers import logits_in
from crossfer.networks.spec import NetworkConfig


def check_network(
    config: NetworkConfig,
    layers: Iterable[str],
    fabric: Fabric,
    classes: Sequence[str] = FER7,
) -> None:
    """Try a network: building, its layers, its answers, a step back.

    Parameters
    ----------
    config
        The network.
    layers
        What is to be trained of it: keys of `crossfer.networks.layers.LAYERS`.
    fabric
        Where to try it; no random generator is changed.
    classes
        What it shall answer with.

    Raises
    ------
    CrossferError
        If something is wrong with it: the key of the configuration is named.
    """
    drawing = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(drawing):
        model = config.deployed(classes) if config.is_deployed else config.build(classes)
        for name in layers:
            try:
                model.layer_names(name)
            except ValueError as error:
                raise CrossferError(f"model: {name} trains no layer: {error}") from None
        try:
            trial = fabric.to_device(copy.deepcopy(model.network).requires_grad_(True))
            shape = config.preprocessing.input_shape
            images = torch.randn(2, *shape, device=fabric.device)
            with fabric.autocast():  # as it is measured, and as it is trained
                measured, answers = trial.eval()(images), trial.train()(images)
            problem = _problem(measured, model.answers) or _problem(answers, model.answers)
            if not problem:
                logits_in(answers, model.answers).float().logsumexp(1).sum().backward()  # type: ignore[no-untyped-call]
        except Exception as error:
            faces = "×".join(map(str, shape))
            raise CrossferError(
                f"model.input: {config.name} fails on faces of {faces}: {one_line(error)}"
            ) from None
    if problem:
        key = "weights" if config.is_deployed else "network"
        raise CrossferError(f"model.{key}: {config.name} {problem}")


def _problem(answer: Any, outputs: int) -> str | None:
    try:
        answers = logits_in(answer, outputs)
    except TypeError as error:
        return str(error)
    if not isinstance(answers, Tensor):
        return f"gives a {type(answers).__name__}: it must give a tensor of logits"
    if answers.shape != (2, outputs):
        shape = tuple(answers.shape)
        return f"gives {shape} for two faces, not (2, {outputs}); model.classes names its outputs"
    if not answers.requires_grad:
        return "gives answers that depend on none of its parameters"
    if not bool(answers.isfinite().all()):
        return "answers with NaN or infinity: a weight or a running statistic of it is damaged"
    sums = answers.float().sum(1)
    if bool((answers >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-2):
        return "gives probabilities: it must give logits, what stands before the softmax"
    return None

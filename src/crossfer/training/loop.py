"""The one training loop: a pure function of model, data, recipe and seed.

Nothing is kept between calls and no global generator is disturbed, so the same call gives the same bits
here, in a test, or on another worker with the same hardware and number of threads.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from crossfer.errors import CrossferError
from crossfer.networks.classifier import Classifier
from crossfer.networks.layers import training_mode
from crossfer.selection import Behind, compare
from crossfer.training.backends import backend_of
from crossfer.training.batches import Faces
from crossfer.training.inputs import learner_of
from crossfer.training.loss import cross_entropy
from crossfer.training.prediction import candidate, judged_on, measures, people_in
from crossfer.training.recipe import Recipe
from crossfer.training.specialised import specialised
from crossfer.training.statistics import dealt, moving_norms, renew_statistics

Weights = dict[str, Tensor]
Row = dict[str, float]
Term = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
"""Of the loss: a function of the network, the images of a step, its logits, and the rows of the images."""


@dataclass(frozen=True)
class State:
    """Everything that the rest of a training depends on, after any step.

    Every epoch seeds its generators from (seed, epoch), so that between epochs there is nothing to keep of
    them.  After `step` steps of one, `inside` holds their states and the sum of the losses so far.
    `kept` are the weights of `kept_epoch`; `best` is what the best epoch so far made of every validation
    image (see `crossfer.selection`).
    `weights`, `momenta`, `averaged` and `inside` are live tensors: save them before the training goes on.
    """

    weights: Weights = field(default_factory=dict)
    momenta: Weights = field(default_factory=dict)
    averaged: Weights = field(default_factory=dict)
    kept: Weights = field(default_factory=dict)
    kept_epoch: int = 0
    best: Weights = field(default_factory=dict)
    history: list[Row] = field(default_factory=list)
    images_seen: int = 0
    seconds: float = 0.0
    step: int = 0
    inside: Weights = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """What a training gives: the network with the weights kept, how it went, and what it cost.

    Where it was merged with the network from before, `alpha` is the share (0–1) of the trained one, and
    `tried` what each share achieved.
    """

    model: Classifier
    kept_epoch: int
    history: list[Row]
    images_seen: int
    seconds: float
    alpha: float | None = None
    tried: list[Row] = field(default_factory=list)


def train(
    model: Classifier,
    training: Faces,
    validation: Mapping[str, Faces],
    recipe: Recipe,
    seed: int,
    fabric: Fabric,
    *,
    penalty: Term | None = None,
    reuse: bool = True,
    keep: Literal["best", "last"] = "best",
    resume: State | None = None,
    on_step: Callable[[int], None] = lambda images: None,
    on_state: Callable[[Callable[[], State]], None] = lambda standing: None,
) -> Trained:
    """Train those parameters of a network that require gradients.

    Parameters
    ----------
    model
        Where training starts; it is left as it was.
    training
        The faces to learn from.
    validation
        Named sets to measure after every epoch.
    recipe
        The hyper-parameters.
    seed
        Determines the order, the augmentation and the dropout of every epoch.
    fabric
        Where to run, from `crossfer.training.machine`.
    penalty
        Added to the loss: a function of the network, the images of a step as the network sees them, its
        logits, and which rows of `training` they are.
    reuse
        Calculate once what the frozen layers make of validation images and of `Recipe.views`, and train no
        more of the next layer than these need; changes the result by no more than rounding.
    keep
        ``"best"``: the weights of the latest epoch that is not shown to be worse than the best on the
        validation sets (`crossfer.selection`); ``"last"``: of the last epoch.
    resume
        A state that an earlier, interrupted call gave to `on_state`.
    on_step
        Called after each step with the number of its images.
    on_state
        Called after each step and each epoch with a function that returns the state, which costs nothing
        until it is called.

    Returns
    -------
    Trained
        The network with the weights kept, in evaluation mode, on the CPU.

    Raises
    ------
    ValueError
        If there is no image to train on, nothing to train, or nothing to choose the best epoch by.
    CrossferError
        If the training diverges.
    """
    if not len(training):
        raise ValueError("there is no image to train on")
    if keep == "best" and not any(len(faces) for faces in validation.values()):
        raise ValueError(
            'there is no validation image to choose the best epoch by: keep the "last"'
        )
    device = fabric.device
    network = specialised(model, training.images, device)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError("no parameter of the network requires a gradient: nothing would train")
    state = resume or State()
    began = time.perf_counter() - state.seconds
    generator = torch.Generator(device)
    training = training.to(device)
    validation = {name: faces.to(device) for name, faces in validation.items() if len(faces)}
    learner = learner_of(
        network,
        training,
        validation,
        recipe,
        seed,
        generator,
        fabric,
        reuse=reuse and penalty is None,  # a penalty looks at the images themselves
    )
    part, inputs = learner.part, learner.inputs
    parameters = {name: p for name, p in part.named_parameters() if p.requires_grad}
    rate = torch.zeros((), device=device)
    backend = backend_of(device)
    optimizer = backend.optimizer(parameters.values(), rate, recipe)
    _, optimizer = fabric.setup(part, optimizer)
    averaged = copy.deepcopy(part) if recipe.averaging else None
    if resume:
        part.load_state_dict(resume.weights)
        for name, momentum in resume.momenta.items():
            # In the layout of its parameter: the fused step walks both in memory order.
            buffer = torch.empty_like(parameters[name]).copy_(momentum)
            optimizer.state[parameters[name]]["momentum_buffer"] = buffer
        if averaged is not None:
            averaged.load_state_dict(resume.averaged)

    dropout = _generator_of_dropout(device)
    total = torch.zeros((), device=device)

    def step(rows: Tensor) -> None:
        """Learn from the images of one batch."""
        images = inputs(rows)
        with fabric.autocast():
            logits = part(images).float()
        known = training.known[rows] if training.known is not None else None
        loss = cross_entropy(logits, training.labels[rows], known, recipe.label_smoothing)
        if penalty:
            loss = loss + penalty(network, images, logits, rows)
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        if averaged is not None:
            _average(averaged, part, recipe.averaging)
        total.add_(loss.detach())

    # The network, not the part: frozen layers may calculate in every step.
    advance = backend.wrap(step, network, penalty, generator)

    def standing(**where: Any) -> State:
        """Return the state now; in the middle of an epoch, with `where` in it."""
        momenta = {
            name: optimizer.state[p].get("momentum_buffer") for name, p in parameters.items()
        }
        return replace(
            state,
            weights=part.state_dict(),
            momenta={name: momentum for name, momentum in momenta.items() if momentum is not None},
            averaged=averaged.state_dict() if averaged is not None else {},
            seconds=time.perf_counter() - began,
            **where,
        )

    def one_epoch(epoch: int) -> tuple[float, int]:
        """Show the batches of an epoch that are left; return its mean loss and the images shown."""
        training_mode(part)
        generator.manual_seed(_seed(seed, epoch, 0))
        torch.manual_seed(_seed(seed, epoch, 1))  # dropout draws from the global generator
        batches = training.batches(recipe.batch_size, generator)
        inputs.begin(epoch)
        total.zero_()
        if state.step:
            total.add_(state.inside["loss"].to(device))
            generator.set_state(state.inside["generator"])
            dropout.set_rng_state(state.inside["dropout"])

        def here(step: int) -> State:
            return standing(
                step=step,
                images_seen=state.images_seen + batches[state.step : step].numel(),
                inside={
                    "loss": total,
                    "generator": generator.get_state(),
                    "dropout": dropout.get_rng_state(),
                },
            )

        for number, rows in enumerate(batches[state.step :], state.step):
            rate.fill_(learning_rate(recipe, (epoch + number / len(batches)) / recipe.epochs))
            advance(rows)
            on_step(len(rows))
            if number + 1 < len(batches):
                on_state(partial(here, number + 1))
        return total.item() / len(batches), batches[state.step :].numel()

    for epoch in range(len(state.history), recipe.epochs):
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            loss, shown = one_epoch(epoch)
        row: Row = {"epoch": epoch + 1, "training_loss": loss}
        measured = averaged if averaged is not None else part
        rows = dealt(training, generator)
        renew_statistics(measured, moving_norms(measured), map(inputs, rows), fabric)
        judged = judged_on(measured, learner.validation, fabric)
        for name in learner.validation:
            found = measures(judged[f"{name}/right"], judged[f"{name}/likelihood"])
            row |= {f"{name}_{key}": value for key, value in found.items()}
        if not math.isfinite(row["training_loss"]):
            raise CrossferError(
                f"the training diverged in epoch {epoch + 1}: choose a lower learning_rate"
            )
        behind = _behind(judged, state.best or judged, learner.validation)
        row |= behind.as_row() if behind else {}
        # Of all epochs so far this is the latest: the one to keep, unless it is shown to be worse.
        improved = keep == "last" or not (behind and behind.shown)
        row["seconds"] = time.perf_counter() - began - sum(r["seconds"] for r in state.history)
        state = replace(
            state,
            kept=_copy(measured.state_dict()) if improved else state.kept,
            kept_epoch=epoch + 1 if improved else state.kept_epoch,
            best=state.best if behind and behind.loss.difference > 0 else judged,
            history=[*state.history, row],
            images_seen=state.images_seen + shown,
            seconds=time.perf_counter() - began,
            step=0,
            inside={},
        )
        on_state(standing)

    result = copy.deepcopy(model).cpu().eval()
    result.load_state_dict(result.state_dict() | learner.whole(state.kept))
    return Trained(result, state.kept_epoch, state.history, state.images_seen, state.seconds)


def learning_rate(recipe: Recipe, progress: float) -> float:
    """Return the learning rate at a share (0–1) of all steps: a linear rise, then half a cosine."""
    if progress < recipe.warmup:
        return recipe.learning_rate * progress / recipe.warmup
    fall = (progress - recipe.warmup) / (1 - recipe.warmup) if recipe.warmup < 1 else 1.0
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * fall))


@torch.no_grad()
def _average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the running mean of the weights on: ``mean = decay * mean + (1 - decay) * weights``."""
    pairs = [
        (mean, now)
        for mean, now in zip(averaged.parameters(), network.parameters(), strict=True)
        if now.requires_grad
    ]
    torch._foreach_lerp_([mean for mean, _ in pairs], [now for _, now in pairs], 1 - decay)
    for mean, now in zip(averaged.buffers(), network.buffers(), strict=True):
        mean.copy_(now)


def _copy(weights: Weights) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


def _generator_of_dropout(device: torch.device) -> Any:
    """Return the module whose ``get_rng_state`` and ``set_rng_state`` are the device's."""
    return torch.random if device.type == "cpu" else torch.get_device_module(device)


def _behind(judged: Weights, best: Weights, validation: Mapping[str, Faces]) -> Behind | None:
    """Return how far an epoch is behind the best; ``None`` where there is nothing to tell by."""
    if not validation:
        return None
    now, then = (candidate(one, validation) for one in (judged, best))
    return compare(now, then, people_in(validation))


def _seed(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)

"""The one training loop: `train`, a pure function of model, data, recipe and seed, around `Training`.

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
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Beta

from crossfer.errors import CrossferError
from crossfer.machine import Machine
from crossfer.networks.classifier import Classifier
from crossfer.networks.layers import training_mode
from crossfer.selection import Behind, compare
from crossfer.training.backends import Plain, backend_of
from crossfer.training.batches import Faces, Mixture
from crossfer.training.devices import Devices
from crossfer.training.loss import Objective, cross_entropy, log_shares
from crossfer.training.prediction import candidate, judged_on, measures, people_in
from crossfer.training.recipe import Recipe
from crossfer.training.schedule import learning_rate
from crossfer.training.specialised import specialised
from crossfer.training.statistics import dealt, moving_norms, renew_statistics
from crossfer.training.surrogate import surrogate_of

Weights = dict[str, Tensor]
Row = dict[str, float]
Keep = Literal["best", "last"]
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


class Misfit(CrossferError):
    """A state that belongs to another training."""


@dataclass(frozen=True)
class Trained:
    """What a training gives: the network with the weights kept, how it went, and what it cost.

    `cached`: whether frozen layers calculated once for each version of an image.  Where it was merged with
    the network from before, `alpha` is the share (0–1) of the trained one, and `tried` what each share
    achieved.  `flop`: of an adaptation, its floating-point operations, see `crossfer.cost`.
    """

    model: Classifier
    kept_epoch: int
    history: list[Row]
    images_seen: int
    seconds: float
    cached: bool = False
    alpha: float | None = None
    tried: list[Row] = field(default_factory=list)
    flop: int = 0


def train(
    model: Classifier,
    training: Faces,
    validation: Mapping[str, Faces],
    recipe: Recipe,
    seed: int,
    machine: Machine,
    *,
    penalty: Term | None = None,
    objective: Objective | None = None,
    reuse: bool = True,
    keep: Keep = "best",
    resume: State | None = None,
    on_step: Callable[[int], None] = lambda images: None,
    on_state: Callable[[Callable[[], State]], None] = lambda standing: None,
) -> Trained:
    """Train the parameters of a network that require gradients.

    Parameters
    ----------
    model
        The network to start from; it is not modified.
    training
        The training faces.
    validation
        Named sets to measure after every epoch.
    recipe
        The hyper-parameters.
    seed
        Determines the order, the augmentation and the dropout of every epoch.
    machine
        Where to run, from `crossfer.machine`.
    penalty
        Added to the loss: a function of the network, the images of a step as the network sees them, its
        logits, and which rows of `training` they are.
    objective
        The loss; by default the cross-entropy with the labels of `training`.
    reuse
        Cache the features of frozen layers for validation images and for `Recipe.views`, and train only
        what these need of the next layer; changes only rounding.
    keep
        ``"best"``: the weights of the latest epoch that is not shown to be worse than the best on the
        validation sets (`crossfer.selection`); ``"last"``: of the last epoch.
    resume
        A state that an interrupted call passed to `on_state`.
    on_step
        Called after each step with the number of its images.
    on_state
        Called after each step and each epoch with a function that returns the state when called.

    Returns
    -------
    Trained
        The network with the weights kept, in evaluation mode, on the CPU.

    Raises
    ------
    ValueError
        If there is no training image, no parameter to train, or no validation image for the selection.
    CrossferError
        If the training diverges, or the state to resume from does not fit (`Misfit`).
    """
    if not len(training):
        raise ValueError("there is no image to train on")
    if keep not in get_args(Keep):
        raise ValueError(f"keep {keep!r}: choose among {', '.join(get_args(Keep))}")
    if keep == "best" and not any(len(faces) for faces in validation.values()):
        raise ValueError('there is no validation image to select the best epoch; keep the "last"')
    run = Training(
        model, training, validation, recipe, seed, machine, penalty, objective, reuse, keep
    )
    if resume:
        run.load_state_dict(resume)
    while not run.finished:
        run.epoch(on_step, on_state)
    return run.result()


class Training:
    """A network that trains, what it is given, and how far it has come; see `train` for the parameters."""

    def __init__(
        self,
        model: Classifier,
        training: Faces,
        validation: Mapping[str, Faces],
        recipe: Recipe,
        seed: int,
        machine: Machine,
        penalty: Term | None = None,
        objective: Objective | None = None,
        reuse: bool = True,
        keep: Keep = "best",
    ) -> None:
        self.began = time.perf_counter()
        self.model, self.recipe, self.seed, self.machine = model, recipe, seed, machine
        self.penalty, self.keep, device = penalty, keep, machine.device
        self.objective = objective or _labelled(training, recipe, len(model.classes), device)
        self.devices = Devices(machine)
        backend = backend_of(device) if self.devices.count == 1 else Plain()
        self.network = specialised(model, training.images, device, backend)
        self.devices.prepare(self.network)
        steps, images = training.steps(recipe.batch_size)
        _check(self.network, self.devices, images)
        self.training = training.to(device)
        if self.objective.relabel:  # in place, from epoch to epoch
            self.training = replace(self.training, labels=self.training.labels.clone())
        self.generator = torch.Generator(device)
        self.validation = {n: faces.to(device) for n, faces in validation.items() if len(faces)}
        self.surrogate = surrogate_of(
            self.network,
            self.training,
            self.validation,
            recipe,
            seed,
            self.generator,
            machine,
            # A penalty, whoever gives labels and what is mixed need the images themselves.
            reuse=reuse and not (penalty or self.objective.relabel or recipe.mixup),
            devices=self.devices,
        )
        self.part, self.inputs = self.surrogate.part, self.surrogate.inputs
        self.mixing = _mixing(recipe, penalty, self.devices)
        self.partners = _partners(self.training, images).to(device)
        self._prepare(backend, recipe.epochs * steps * images)
        self.state = State()
        """As it was after the last epoch, or where the training was resumed; its weights may be older."""

    def _prepare(self, backend: Plain, shown: int) -> None:
        """Prepare the steps of the part that trains, which is shown so many images in all."""
        device = self.machine.device
        self.parameters = {n: p for n, p in self.part.named_parameters() if p.requires_grad}
        self.rate, self.total = torch.zeros((), device=device), torch.zeros((), device=device)
        self.optimizer = backend.optimizer(self.parameters.values(), self.rate, self.recipe)
        self.averaged = copy.deepcopy(self.part) if self.recipe.averaging else None
        self.forward = backend.compiled(self.part, shown)
        # The network, not the part: frozen layers may calculate in every step.
        self.advance = backend.wrap(self.step, self.network, self.penalty, self.generator)

    @property
    def finished(self) -> bool:
        """Whether all epochs are over."""
        return len(self.state.history) == self.recipe.epochs

    @property
    def measured(self) -> Classifier:
        """The network that is measured and kept: the running mean of the weights, where there is one."""
        return self.part if self.averaged is None else self.averaged

    def step(self, rows: Tensor) -> None:
        """Learn from the images of one batch; of several devices, from this one's share of them."""
        images, whole = self.inputs(rows), len(rows)
        self.devices.images, rows = whole, self.devices.share(rows)
        # By the generator that dropout draws from.
        share = self.mixing.sample() if self.mixing else None
        if share is not None:
            images = torch.lerp(images[self.partners], images, share)
        with self.machine.autocast():
            logits = self.forward(images).float()
        loss = self._loss(logits, rows)
        if share is not None:
            loss = torch.lerp(self._loss(logits, rows[self.partners]), loss, share)
        if self.penalty:
            loss = loss + self.penalty(self.network, images, logits, rows)
        if self.devices.count > 1:
            loss = loss * (len(rows) / whole)
        loss.backward()
        loss = loss.detach()
        gradients = (parameter.grad for parameter in self.parameters.values())
        self.devices.sum([loss, *(gradient for gradient in gradients if gradient is not None)])
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.averaged is not None:
            _average(self.averaged, self.part, self.recipe.averaging)
        self.total.add_(loss)

    def _loss(self, logits: Tensor, rows: Tensor) -> Tensor:
        known = self.training.known[rows] if self.training.known is not None else None
        return self.objective.loss(logits, self.training.labels[rows], known)

    def epoch(
        self,
        on_step: Callable[[int], None] = lambda images: None,
        on_state: Callable[[Callable[[], State]], None] = lambda standing: None,
    ) -> None:
        """Show the batches of an epoch that are left, measure the network, and keep it unless it is worse."""
        device, number = self.machine.device, len(self.state.history) + 1
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            loss, shown = self._show(number - 1, on_step, on_state)
        rows = dealt(self.training, self.generator)
        renew_statistics(
            self.measured, moving_norms(self.measured), map(self.inputs, rows), self.machine
        )
        judged = judged_on(self.measured, self.validation, self.machine, self.surrogate.given)
        row: Row = {"epoch": number, "training_loss": loss}
        for name in self.validation:
            found = measures(judged[f"{name}/right"], judged[f"{name}/likelihood"])
            row |= {f"{name}_{key}": value for key, value in found.items()}
        told = (judged[f"{name}/likelihood"] for name in self.validation)
        if not (math.isfinite(loss) and all(likelihood.isfinite().all() for likelihood in told)):
            raise CrossferError(
                f"the training diverged in epoch {number}; set a lower learning_rate"
            )
        behind = _behind(judged, self.state.best or judged, self.validation)
        row |= behind.as_row() if behind else {}
        # Of all epochs so far this is the latest: the one to keep, unless it is shown to be worse.
        improved = self.keep == "last" or not (behind and behind.shown)
        seconds = time.perf_counter() - self.began
        row["seconds"] = seconds - sum(r["seconds"] for r in self.state.history)
        self.state = State(
            kept=_copy(self.measured.state_dict()) if improved else self.state.kept,
            kept_epoch=number if improved else self.state.kept_epoch,
            best=self.state.best if behind and behind.loss.difference > 0 else judged,
            history=[*self.state.history, row],
            images_seen=self.state.images_seen + shown,
        )
        on_state(self.state_dict)

    def _show(
        self,
        epoch: int,
        on_step: Callable[[int], None],
        on_state: Callable[[Callable[[], State]], None],
    ) -> tuple[float, int]:
        """Show the batches of an epoch, from 0, that are left; return its mean loss and the images shown."""
        first, inside = self.state.step, self.state.inside
        if self.objective.relabel:  # in the middle of an epoch they are those of its beginning
            labels = (
                inside["labels"]
                if first
                else self.objective.relabel(self.network.eval(), self.training.images)
            )
            self.training.labels.copy_(labels)
        training_mode(self.part)
        self.generator.manual_seed(_seed(self.seed, epoch, 0))
        torch.manual_seed(_seed(self.seed, epoch, 1))  # dropout draws from the global generator
        batches = self.training.batches(self.recipe.batch_size, self.generator)
        self.inputs.begin(epoch)
        self.total.zero_()
        if first:
            self.total.add_(inside["loss"].to(self.total.device))
            self.generator.set_state(inside["generator"])
            self._dropout.set_rng_state(inside["dropout"])
        for number, rows in enumerate(batches[first:], first):
            progress = (epoch + number / len(batches)) / self.recipe.epochs
            rate = learning_rate(self.recipe, progress)
            if len(batches) * self.recipe.epochs == 1:
                rate = self.recipe.learning_rate  # a single step, which would have one of 0
            self.rate.fill_(rate)
            self.advance(rows)
            on_step(len(rows))
            if number + 1 < len(batches):
                seen = self.state.images_seen + batches[first : number + 1].numel()
                on_state(partial(self.state_dict, number + 1, seen))
        return self.total.item() / len(batches), batches[first:].numel()

    @property
    def _dropout(self) -> Any:
        """The module whose ``get_rng_state`` and ``set_rng_state`` are the device's."""
        device = self.machine.device
        return torch.random if device.type == "cpu" else torch.get_device_module(device)

    def state_dict(self, step: int = 0, images_seen: int | None = None) -> State:
        """Return the state now: between epochs, or after some steps of one, with the images seen by then."""
        momenta = {
            name: self.optimizer.state[parameter].get("momentum_buffer")
            for name, parameter in self.parameters.items()
        }
        inside = {
            "loss": self.total,
            "generator": self.generator.get_state(),
            "dropout": self._dropout.get_rng_state(),
        }
        if self.objective.relabel:
            inside["labels"] = self.training.labels
        return replace(
            self.state,
            weights=self.part.state_dict(),
            momenta={name: momentum for name, momentum in momenta.items() if momentum is not None},
            averaged={} if self.averaged is None else self.averaged.state_dict(),
            images_seen=self.state.images_seen if images_seen is None else images_seen,
            seconds=time.perf_counter() - self.began,
            step=step,
            inside=inside if step else {},
        )

    def load_state_dict(self, state: State) -> None:
        """Go on from a state, of the same training."""
        if not self._fits(state):
            raise Misfit("the checkpoint belongs to another training; delete it to begin again")
        self.part.load_state_dict(state.weights)
        for name, momentum in state.momenta.items():
            # In the layout of its parameter: the fused step walks both in memory order.
            buffer = torch.empty_like(self.parameters[name]).copy_(momentum)
            self.optimizer.state[self.parameters[name]]["momentum_buffer"] = buffer
        if self.averaged is not None:
            self.averaged.load_state_dict(state.averaged)
        self.began -= state.seconds
        self.state = state

    def _fits(self, state: State) -> bool:
        """Tell whether a state has the tensors of this training, in their shapes."""
        whole, trained = _shapes(self.part.state_dict()), _shapes(self.parameters)
        inside = {"loss", "generator", "dropout", *(["labels"] if self.objective.relabel else [])}
        return (
            _shapes(state.weights) == whole
            and _shapes(state.momenta).items() <= trained.items()
            and _shapes(state.averaged) == ({} if self.averaged is None else whole)
            and _shapes(state.kept) == (whole if state.history else {})
            and state.inside.keys() == (inside if state.step else set())
        )

    def result(self) -> Trained:
        """Return the network with the weights kept."""
        state, model = self.state, copy.deepcopy(self.model).cpu().eval()
        model.load_state_dict(model.state_dict() | self.surrogate.fold(state.kept))
        seconds = sum(row["seconds"] for row in state.history)
        cached = self.surrogate.is_cached
        return Trained(model, state.kept_epoch, state.history, state.images_seen, seconds, cached)


def _check(network: Classifier, devices: Devices, images: int) -> None:
    """Refuse a network without a parameter to train, and more devices than a batch has images."""
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError(
            "no parameter of the network requires a gradient, so nothing would be trained"
        )
    if images < devices.count:
        raise CrossferError(
            f"devices: {devices.count}: more than the {images} images of a batch; use fewer"
        )


def _labelled(training: Faces, recipe: Recipe, classes: int, device: torch.device) -> Objective:
    """Return the cross-entropy with the labels, as a recipe smooths them and adjusts the logits."""
    adjustment = None
    if recipe.logit_adjustment:
        shares = log_shares(training.labels, classes, training.weights)
        adjustment = recipe.logit_adjustment * shares.to(device)
    return Objective(
        partial(cross_entropy, label_smoothing=recipe.label_smoothing, adjustment=adjustment)
    )


def _mixing(recipe: Recipe, penalty: Term | None, devices: Devices) -> Beta | None:
    """Return what the shares of mixed images are drawn from; None where none are mixed."""
    if not recipe.mixup:
        return None
    if penalty or devices.count > 1:
        beside = "a penalty, which looks at each image" if penalty else "several devices"
        raise CrossferError(f"mixup: cannot be combined with {beside}; leave one of them out")
    alpha = torch.tensor(recipe.mixup, device=devices.device)
    return Beta(alpha, alpha, validate_args=False)


def _partners(training: Faces, images: int) -> Tensor:
    """Return which image of a batch each one is mixed with: int64 (images,).

    Batches are shuffled, so that their reverse is random; in a mixture each begins with the new images, and
    all but a permutation would mix new with old ones only.
    """
    if isinstance(training, Mixture):
        return torch.randperm(images, generator=torch.Generator().manual_seed(0))
    return torch.arange(images).flip(0)


@torch.no_grad()
def _average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the running mean of the weights on: ``mean = decay * mean + (1 - decay) * weights``."""
    pairs: list[tuple[Tensor, Tensor]] = [
        (mean, now)
        for mean, now in zip(averaged.parameters(), network.parameters(), strict=True)
        if now.requires_grad
    ]
    torch._foreach_lerp_([mean for mean, _ in pairs], [now for _, now in pairs], 1 - decay)
    for mean, now in zip(averaged.buffers(), network.buffers(), strict=True):
        mean.copy_(now)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _copy(weights: Weights) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


def _behind(judged: Weights, best: Weights, validation: Mapping[str, Faces]) -> Behind | None:
    """Return how far an epoch is behind the best; ``None`` where there is nothing to tell by."""
    if not validation:
        return None
    now, then = (candidate(one, validation) for one in (judged, best))
    return compare(now, then, people_in(validation))


def _seed(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)

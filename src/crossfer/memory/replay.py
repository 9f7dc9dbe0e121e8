"""Generative feature replay: train the fully connected layers with features sampled from a memory file."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from crossfer.machine import Machine
from crossfer.memory.adaptation import Adaptation
from crossfer.memory.drift import compensated
from crossfer.memory.penalties import SourceDistillation
from crossfer.networks import Classifier
from crossfer.strict import Strict
from crossfer.terms import Needs
from crossfer.training import Faces, Mixture, Recipe, Trained, specialised, train
from crossfer.training.cut import Cut, cut_of
from crossfer.training.inputs import Anew, Kept


@dataclass(frozen=True)
class FeatureReplay(Strict):
    """Generative feature replay: samples from each class's Gaussian replace the old images.

    Every batch contains `draws` samples per target image, with the label of their class.  The old network is
    distilled on them, as in `SourceDistillation`.  The layers before the fully connected ones are frozen, so
    that the Gaussians remain valid.  Liu et al., Generative Feature Replay For Class-Incremental Learning,
    CVPR Workshops 2020; their generator is a GAN, with a Gaussian as a comparison, and they also train the
    earlier layers, with feature distillation.

    Where training starts from a network whose earlier layers are not the old network's any more, the samples
    are moved as the target's features have moved: see `crossfer.memory.drift`.

    Parameters
    ----------
    draws
        Samples per target image.
    temperature, weight
        Parameters of the distillation.
    drift
        How samples follow features that have changed; runs from before there was a way have another key.
    """

    LAYERS: ClassVar = ("FC", "head")
    needs: ClassVar[Needs] = ("head",)

    kind: Literal["feature-replay"] = "feature-replay"
    draws: int = 3
    temperature: float = 2.0
    weight: float = 1.0
    drift: Literal["ridge"] = "ridge"

    def learn(self, given: Adaptation) -> Trained:
        """Train the network."""
        began, model, memory = time.perf_counter(), given.model, given.memory
        target, recipe, seed, machine = given.target, given.recipe, given.seed, given.machine
        cut, old = cut_of(model), cut_of(given.old)
        views = views_of(recipe)
        new = _versions(model, cut, target, replace(recipe, views=views), seed, machine)
        generator = torch.Generator().manual_seed(seed)
        drawn, labels = memory.draw(self.draws * len(new), generator)
        samples = compensated(drawn, given.old, given.start, target.images, machine)
        samples = samples.clamp_min(0) if memory.rectified else samples
        known = None if memory.known.all() else memory.known.expand(len(drawn), -1)
        shown = Mixture.of(new, Faces(samples, labels, known), 1 / (1 + self.draws))
        term = SourceDistillation(temperature=self.temperature, weight=self.weight).term(
            old.rest, shown, None, seed, machine, asked=drawn
        )
        network = specialised(model, target.images, machine.device)
        held_out = {
            side: replace(faces, images=cut.features(network, faces.images, machine))
            for side, faces in given.validation.items()
            if len(faces)
        }
        # One epoch over all versions is as many steps as `views` epochs over one version each.
        inner = replace(recipe, epochs=recipe.epochs // views, views=0)
        prepared = time.perf_counter() - began
        trained = train(
            cut.rest, shown, held_out, inner, seed, machine, penalty=term, **given.options
        )
        whole = cut.joined(model, trained.model)
        return replace(trained, model=whole, seconds=trained.seconds + prepared)


def views_of(recipe: Recipe) -> int:
    """Return how many versions of each image are kept: as many as `views` allows, and equally often shown."""
    return max(n for n in range(1, max(1, recipe.views) + 1) if recipe.epochs % n == 0)


def _versions(
    model: Classifier, cut: Cut, faces: Faces, recipe: Recipe, seed: int, machine: Machine
) -> Faces:
    """Return faces whose images are the features of all augmented versions."""
    network = specialised(model, faces.images, machine.device)
    shown = faces.to(machine.device)
    generator = torch.Generator(machine.device)
    how, body = model.preprocessing, cut.body(network)
    kept = Kept(Anew(shown.images, body, recipe, seed, generator, machine, how))
    for version in range(recipe.views):
        kept.begin(version)

    def repeated(each: Tensor | None) -> Tensor | None:
        return None if each is None else each.repeat(recipe.views, *[1] * (each.ndim - 1))

    labels = faces.labels.repeat(recipe.views)
    return Faces(
        kept.outputs.float().cpu(), labels, repeated(faces.known), repeated(faces.subjects)
    )

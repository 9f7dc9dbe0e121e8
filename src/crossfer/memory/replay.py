"""Generative feature replay: train the fully connected layers beside features drawn from a memory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor

from crossfer.memory.file import Memory
from crossfer.memory.penalties import SourceDistillation
from crossfer.networks import Classifier
from crossfer.training import Faces, Mixture, Recipe, Trained, specialised, train
from crossfer.training.cut import Cut, cut_of
from crossfer.training.inputs import Anew, Kept


@dataclass(frozen=True)
class FeatureReplay:
    """Generative feature replay: draws from each class's Gaussian stand for the old images.

    Every batch holds some draws to each target image.  They are labelled with their class, and the network
    is held to the answers that the one which it starts from gives on them, as in `SourceDistillation`.  What
    lies before the fully connected layers is frozen, so that the Gaussians stay true.  Liu et al., Generative
    Feature Replay For Class-Incremental Learning, CVPR Workshops 2020, whose generator is a GAN, and a
    Gaussian in a comparison; they train the layers before too, held by distilling their features.

    Parameters
    ----------
    draws
        To each target image.
    temperature, weight
        Of the distillation.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    LAYERS: ClassVar = ("FC", "head")

    kind: Literal["feature-replay"] = "feature-replay"
    draws: int = 3
    temperature: float = 2.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError("feature-replay: draws must be 1 or more")

    def learn(
        self,
        start: Classifier,
        model: Classifier,
        memory: Memory,
        target: Faces,
        validation: Mapping[str, Faces],
        recipe: Recipe,
        seed: int,
        fabric: Fabric,
        **options: Any,
    ) -> Trained:
        """Train a network.

        Parameters
        ----------
        start
            The network that is adapted, as it is.
        model
            A copy of it, which can say every class of the target, and of which the layers that train require
            gradients; it is left as it was.
        memory
            What stands for the source's images.
        target
            The target's training set.
        validation, recipe, seed, fabric, options
            As for `crossfer.training.train`.
        """
        began = time.perf_counter()
        cut, old = cut_of(model), cut_of(start)
        views = max(1, min(recipe.views, recipe.epochs))
        new = _versions(model, cut, target, replace(recipe, views=views), seed, fabric)
        generator = torch.Generator().manual_seed(seed)
        drawn, labels = memory.draw(self.draws * len(new), generator)
        known = None if memory.known.all() else memory.known.expand(len(drawn), -1)
        shown = Mixture.of(new, Faces(drawn, labels, known), 1 / (1 + self.draws))
        term = SourceDistillation(temperature=self.temperature, weight=self.weight).term(
            old.rest, shown, None, seed, fabric
        )
        network = specialised(model, target.images, fabric.device)
        held_out = {
            side: replace(faces, images=cut.features(network, faces.images, fabric))
            for side, faces in validation.items()
            if len(faces)
        }
        # An epoch of all versions is as many of one each.
        inner = replace(recipe, epochs=max(1, round(recipe.epochs / views)), views=0)
        prepared = time.perf_counter() - began
        trained = train(cut.rest, shown, held_out, inner, seed, fabric, penalty=term, **options)
        whole = cut.joined(model, trained.model)
        return replace(trained, model=whole, seconds=trained.seconds + prepared)


def _versions(
    model: Classifier, cut: Cut, faces: Faces, recipe: Recipe, seed: int, fabric: Fabric
) -> Faces:
    """Return the features of all augmented versions of some faces, as faces."""
    network = specialised(model, faces.images, fabric.device)
    shown = faces.to(fabric.device)
    generator = torch.Generator(fabric.device)
    how, body = model.preprocessing, cut.body(network)
    kept = Kept(Anew(shown.images, body, recipe, seed, generator, fabric, how))
    for version in range(recipe.views):
        kept.begin(version)

    def repeated(each: Tensor | None) -> Tensor | None:
        return None if each is None else each.repeat(recipe.views, *[1] * (each.ndim - 1))

    labels = faces.labels.repeat(recipe.views)
    return Faces(
        kept.outputs.float().cpu(), labels, repeated(faces.known), repeated(faces.subjects)
    )

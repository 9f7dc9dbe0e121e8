"""How the learning rate goes: a linear rise, then half a cosine."""

from __future__ import annotations

import math

from crossfer.training.recipe import Recipe


def learning_rate(recipe: Recipe, progress: float) -> float:
    """Return the learning rate at a share (0–1) of all steps."""
    if progress < recipe.warmup:
        return recipe.learning_rate * progress / recipe.warmup
    fall = (progress - recipe.warmup) / (1 - recipe.warmup) if recipe.warmup < 1 else 1.0
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * fall))

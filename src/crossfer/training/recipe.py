"""A recipe: the training hyper-parameters, where the paper is silent.

The defaults were chosen on FER2013's validation set; ``docs/results.md`` holds the measurements.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from numbers import Integral

from crossfer.strict import Strict


@dataclass(frozen=True)
class Augmentation(Strict):
    """Random augmentation of training images, drawn each time an image is used (but see `Recipe.views`).

    Parameters
    ----------
    flip
        Horizontal flip with probability one half.
    shift
        Largest shift along each axis, as a fraction of the image side, 0–0.5; in whole pixels.
    rotate
        Largest rotation either way, in degrees, 0–180.
    scale
        Largest relative enlargement or reduction, 0–0.5.
    erase
        Largest side of an erased square, as a fraction of the image side, 0–1.  It is 0 after normalisation:
        the image's mean, or the one that the model normalises by.
    """

    flip: bool = True
    shift: float = 0.08
    rotate: float = 0.0
    scale: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        _within("shift", self.shift, 0, 0.5)
        _within("rotate", self.rotate, 0, 180)
        _within("scale", self.scale, 0, 0.5)
        _within("erase", self.erase, 0, 1)


@dataclass(frozen=True)
class Recipe(Strict):
    """The hyper-parameters of one training.

    Stochastic gradient descent with Nesterov momentum. The learning rate rises linearly over the fraction
    `warmup` of all steps and then follows a cosine to zero.

    Parameters
    ----------
    epochs
        Passes over the training set; each leaves out fewer images, others each time, than it has batches.
    batch_size
        Approximate batch size: the training set is divided into equal batches closest to it.
    learning_rate
        The highest learning rate of the schedule.
    momentum
        Nesterov momentum, 0–1.
    weight_decay
        Weight decay of all trained parameters.
    warmup
        Fraction of all steps with a rising learning rate, 0–1.
    label_smoothing
        0–1.
    logit_adjustment
        Weight of the log class frequencies of the training set, which are added to the logits in the loss;
        0: none. At 1 all classes count the same, independent of their number of images
        (`crossfer.training.loss.log_shares`).
    mixup
        Mixup of image pairs and their losses, with a weight drawn for each batch from Beta(mixup, mixup);
        0: none.  Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018.
    averaging
        EMA decay of the weights, 0 (none) to below 1; the averaged weights are measured and kept.
    views
        Number of augmented views per image, used in turn, so that features of frozen layers can be cached;
        0: a new view every time.
    augmentation
        Augmentation of the training images.
    """

    epochs: int = 40
    batch_size: int = 128
    learning_rate: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup: float = 0.2
    label_smoothing: float = 0.05
    logit_adjustment: float = 0.0
    mixup: float = 0.0
    averaging: float = 0.0
    views: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        _whole("epochs", self.epochs, 1, 100_000)
        _whole("batch_size", self.batch_size, 2, 1_000_000)
        _within("learning_rate", self.learning_rate, 0, 100)
        _within("momentum", self.momentum, 0, 1)
        _within("weight_decay", self.weight_decay, 0, 1)
        _within("warmup", self.warmup, 0, 1)
        _within("label_smoothing", self.label_smoothing, 0, 1)
        _within("logit_adjustment", self.logit_adjustment, 0, 10)
        _within("mixup", self.mixup, 0, 10)
        _whole("views", self.views, 0, 1000)
        _within("averaging", self.averaging, 0, 0.9999)


def _whole(name: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}: must be a whole number")
    _within(name, value, low, high)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}: must be between {low} and {high}")


FROM_SCRATCH = Recipe()
"""For strategies that start from random weights."""

STRONG = Recipe(
    epochs=76,
    batch_size=256,
    learning_rate=0.06,
    weight_decay=5e-4,
    warmup=0.1,
    label_smoothing=0.1,
    augmentation=Augmentation(shift=0.1, rotate=10, scale=0.1, erase=0.25),
)
"""For them where there is a GPU: longer, with more augmentation.  68.0 % on FER2013 instead of 66.5."""

LONG = replace(STRONG, epochs=230)
"""Three times as long: 69.6 %, mostly on test images that have a copy in the training set."""

NAMED = {"quick": FROM_SCRATCH, "strong": STRONG, "long": LONG}
"""Recipes for training from random weights, by the name that a configuration calls them."""

FINE_TUNING = Recipe(epochs=30, batch_size=32, learning_rate=0.005)
"""For strategies that start from the baseline."""

FINE_TUNING_LAST_LAYERS = replace(FINE_TUNING, views=4)
"""For those of them that train the last layers only, on the target: what is frozen sees an image four times.

That ever new versions give nothing better is measured in ``docs/benchmarks.md``.
"""

"""The loss: cross-entropy among the answers that an image can have, or whatever is minimised instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from crossfer.networks.classifier import NEVER, Classifier


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    known: Tensor | None,
    label_smoothing: float = 0.0,
    adjustment: Tensor | None = None,
) -> Tensor:
    """Return the mean cross-entropy, each image judged among the classes of its own dataset.

    A dataset without a class says nothing about it.  With ``known`` that class takes no part in the
    image's softmax, so nothing teaches the network never to say it: its logit gets no gradient.

    Parameters
    ----------
    logits
        float (N, classes).
    labels
        int64 (N,).
    known
        bool (N, classes): the classes that each image's dataset has; ``None`` where all have all.
    label_smoothing
        Share (0–1) of the truth that is spread evenly over an image's classes.
    adjustment
        Added to the logits of every image, float (classes,): see `log_shares`.  A class of −∞ takes no part.

    Returns
    -------
    Tensor
        A scalar, in nats.
    """
    if adjustment is not None:
        shown = adjustment.isfinite()
        known = shown.expand_as(logits) if known is None else known & shown
        logits = logits + adjustment.where(shown, 0)
    if known is None:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    truth = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    spread = known / known.sum(1, keepdim=True)
    truth = (1 - label_smoothing) * truth + label_smoothing * spread
    return F.cross_entropy(logits.masked_fill(~known, NEVER), truth)


def log_shares(labels: Tensor, classes: int, weights: Tensor) -> Tensor:
    """Return the logarithm of each class's share of a training set, float (classes,).

    Added to the logits in the loss it lets every class count the same in what is learnt (Menon et al.,
    Long-Tail Learning via Logit Adjustment, ICLR 2021, equation 10).  −∞ for a class without an image.

    Parameters
    ----------
    labels
        int64 (N,).
    weights
        How often each image is shown, relative to others: float (N,).
    """
    counts = torch.bincount(labels, weights, classes)
    return (counts / counts.sum()).log().float()


@dataclass(frozen=True)
class Objective:
    """What a training minimises in place of the cross-entropy with the labels that it is given.

    Parameters
    ----------
    loss
        A function of logits float (N, classes), labels int64 (N,), and the classes that each image's dataset
        has, bool (N, classes) or ``None``: a scalar.
    relabel
        Asked at the beginning of every epoch for the labels to learn from: a function of the network as it
        is and of all training images, uint8 (M, H, W) or (M, H, W, 3), which gives int64 (M,).  ``None``:
        the labels stay.
    """

    loss: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    relabel: Callable[[Classifier, Tensor], Tensor] | None = None

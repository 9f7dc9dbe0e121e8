"""Avalanche's Naive strategy: fine-tuning, one experience."""

from __future__ import annotations

import warnings

import torch

# Beside a CPU build of PyTorch, torchvision's compiled part may not load; nothing here needs it.
_operators = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    _operators.define(f"{_name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")

from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from network import BATCH, DEVICE, Faces, measure, sgd, study_cnn
from torch.nn import CrossEntropyLoss

warnings.simplefilter("ignore")
network = study_cnn()


strategy = Naive(
    model=network,
    optimizer=sgd(network),
    criterion=CrossEntropyLoss(),
    train_mb_size=BATCH,
    train_epochs=1,
    device=DEVICE,
    evaluator=EvaluationPlugin(),
)


def epoch(images, labels):
    """Show every face once."""
    dataset = as_classification_dataset(Faces(images, labels))
    (experience,) = benchmark_from_datasets(train=[dataset]).streams["train"]
    strategy.train(experience)


measure(epoch)

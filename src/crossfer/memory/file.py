"""The memory file: statistics that stand for the source's images; no image is in it.

Of the features at the cut (`crossfer.training.cut`) it holds a low-rank Gaussian for each class; of the
penultimate features, and of random ReLU projections of these, the second moments and the sums of each class;
and how the network does on the source's validation faces (`crossfer.memory.calibration`).
`Memory.of` makes it of training images, `Memory.save` and `load_memory` write and read it; strategies of the
regime *statistics* read it and none of the source's training images.  What it can give away about a person
is measured in docs/memory.md.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional as F

from crossfer.errors import CrossferError, one_line
from crossfer.memory.calibration import Calibration
from crossfer.networks import Classifier
from crossfer.networks.weights import save_tensors
from crossfer.progress import Told, silent
from crossfer.training import Faces, specialised
from crossfer.training.cut import cut_of

FORMAT = 1
"""Of the file; raised when it changes."""
MEMORY = "memory.safetensors"
"""What it is called in a run's folder."""
SAID = "memory"
"""The entry of the file's metadata that holds, as JSON, all that is no tensor."""
MAX_MB = 5.0
"""How large it may be unless the user says otherwise, in millions of bytes."""

FEWEST = 10
"""Images of a class, below which nothing is said of it."""
PER_DIRECTION = 20
"""Images to each direction of a Gaussian, and to each random projection: with fewer, these would tell which
images they were made of (docs/memory.md)."""
MOST = 4096
"""Images of a class that its Gaussian is estimated from, and whose features are held at the same time."""
RANK, PROJECTIONS, PER_FEATURE = 32, 2000, 8
"""Directions of a Gaussian, random projections, and these for each feature: more are not worth their room."""
JITTER = 1e-4
"""Added to the variances, as a share of each, so that a scatter of few images has a Cholesky factor."""
PER_MEAN = 14
"""Bytes of a number in `Calibration`."""
OVERHEAD = 12_288
"""Bytes of names and small numbers, at most."""
AGAIN = "make it again with `crossfer remember MODEL SOURCE`"


@dataclass(frozen=True)
class Moments:
    """Second moments of features, and their sums by class: all that a ridge regression needs.

    Parameters
    ----------
    counts
        Images of each class, float64 (C,).
    sums
        Of the features of each class, float64 (C, D).
    products
        Σ x xᵀ over all images, float64 (D, D).
    """

    counts: Tensor
    sums: Tensor
    products: Tensor

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, classes: int) -> Moments:
        """Return those of features (N, D) with labels, int64 (N,)."""
        which, centre = F.one_hot(labels, classes).double(), features.double().mean(0)
        # Small numbers: in single precision they are exact enough.
        about = (features - centre).float()
        products, sums = (about.T @ about).double(), which.T @ about.double()
        left = torch.outer(sums.sum(0), centre)
        products += left + left.T + len(labels) * torch.outer(centre, centre)
        return cls(which.sum(0), sums + torch.outer(which.sum(0), centre), products)

    @classmethod
    def none(cls, classes: int, size: int) -> Moments:
        """Return those of no image."""
        double = torch.float64
        return cls(
            torch.zeros(classes, dtype=double),
            torch.zeros(classes, size, dtype=double),
            torch.zeros(size, size, dtype=double),
        )

    def __add__(self, other: Moments) -> Moments:
        """Return those of both sets of images: exactly those of all of them at once."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Moments(*(a + b for a, b in pairs))

    def __mul__(self, weight: float) -> Moments:
        """Return those of images that count `weight` times each."""
        return Moments(*(getattr(self, f.name) * weight for f in fields(self)))

    @property
    def means(self) -> Tensor:
        """The mean of each class, float64 (C, D); zero where there is no image."""
        return self.sums / self.counts.clamp_min(1)[:, None]

    @property
    def mean(self) -> Tensor:
        """The mean of all, float64 (D,)."""
        return self.sums.sum(0) / self.counts.sum()

    @property
    def scatter(self) -> Tensor:
        """Σ (x − mean)(x − mean)ᵀ over all images, float64 (D, D)."""
        return self.products - self.counts.sum() * torch.outer(self.mean, self.mean)

    @property
    def covariance(self) -> Tensor:
        """Of all images, float64 (D, D)."""
        return self.scatter / self.counts.sum()

    @property
    def shared_covariance(self) -> Tensor:
        """Within the classes, float64 (D, D): of each image about the mean of its class."""
        between = self.means.T @ (self.counts[:, None] * self.means)
        return (self.products - between) / self.counts.sum()


@dataclass(frozen=True)
class Gaussians:
    """A Gaussian for each class: N(mean, factorᵀ factor + diag(residual)).

    Parameters
    ----------
    mean
        float32 (C, D).
    factor
        float32 (C, R, D): the R largest principal components of the class, as long as their deviations;
        zero where the class has too few images for so many.
    residual
        float32 (C, D): the variance of each feature that these leave, not negative.
    """

    mean: Tensor
    factor: Tensor
    residual: Tensor

    @classmethod
    def none(cls, classes: int, size: int, rank: int) -> Gaussians:
        """Return those of classes without an image: all zero."""
        return cls(
            torch.zeros(classes, size),
            torch.zeros(classes, rank, size),
            torch.zeros(classes, size),
        )

    def describe(self, label: int, features: Tensor) -> None:
        """Fit the Gaussian of a class to its features, float (N, D), in place."""
        mean = features.mean(0)
        centred = features - mean
        rank = min(self.factor.shape[1], len(features) // PER_DIRECTION, features.shape[1])
        with torch.random.fork_rng([]):  # the decomposition starts at random vectors
            torch.default_generator.manual_seed(0)
            _, lengths, directions = torch.svd_lowrank(centred, min(2 * rank, *centred.shape))
        along = directions[:, :rank] * lengths[:rank] / math.sqrt(len(features))
        self.mean[label], self.factor[label, :rank] = mean, along.T
        left = centred.square().mean(0) - along.square().sum(1)
        self.residual[label] = left.clamp_min(0)

    def draw(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Draw features of some classes, int64 (N,) → float32 (N, D)."""
        along = torch.randn(len(labels), self.factor.shape[1], generator=generator)
        beside = torch.randn(len(labels), self.mean.shape[1], generator=generator)
        drawn = torch.empty_like(beside)
        for label in torch.unique(labels).tolist():
            rows = labels == label
            deviation = self.residual[label].sqrt()
            drawn[rows] = self.mean[label] + along[rows] @ self.factor[label]
            drawn[rows] += beside[rows] * deviation
        return drawn


@dataclass(frozen=True)
class Memory:
    """What stands for the source's training images.

    Parameters
    ----------
    model
        The `fingerprint` of the classifier whose features these are.
    classes
        Its classes, in its order.
    known
        bool (C,): those that the source's datasets have.
    gaussians
        Of the features at the cut.
    moments
        Of the penultimate features, which the head is given.  Classes of fewer than ten images are left out
        of all statistics, and have a count of 0.
    projected
        Of ReLU(x W), x the penultimate features and W from `projection`; of size 0 where there was no room.
    rectified
        Whether no feature at the cut is negative, as behind a ReLU: then no draw is.
    calibration
        Of the source's validation faces; ``None`` where they are fewer than 20.
    """

    model: str
    classes: tuple[str, ...]
    known: Tensor
    gaussians: Gaussians
    moments: Moments
    projected: Moments
    rectified: bool
    calibration: Calibration | None = None

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        faces: Faces,
        fabric: Fabric,
        max_mb: float = MAX_MB,
        progress: Told = silent,
        validation: Faces | None = None,
        name: str = "",
    ) -> Memory:
        """Make it of a source: one pass of the network over its training and validation images as they are.

        Parameters
        ----------
        classifier
            The network that strategies will start from; left as it was.
        faces
            The source's training set.
        fabric
            Where to run.
        max_mb
            How large its file may be, in millions of bytes: the rank of the Gaussians and the number of
            projections are chosen to fit.
        progress
            Told how many of how many images were looked at.
        validation
            The source's validation set, by which `crossfer assess` is calibrated.
        name
            Of the source.

        Raises
        ------
        CrossferError
            If it cannot be: the network has no vector of features, no class has ten images, or there is too
            little room.
        """
        network = specialised(classifier, faces.images, fabric.device)
        cut, labels, count = cut_of(network), faces.labels.cpu(), len(classifier.classes)
        at_cut = cut.features(network, faces.images[:1], fabric)
        last = cut.penultimate(at_cut, fabric).shape[1]
        chunks = _in_chunks(labels)
        done, total = 0, sum(len(rows) for _, rows, _ in chunks)
        rank, projections = sizes_within(max_mb, count, at_cut.shape[1], last, total)
        gaussians = Gaussians.none(count, at_cut.shape[1], rank)
        moments, projected = Moments.none(count, last), Moments.none(count, projections)
        weight, rectified = projection(last, projections), True
        for label, rows, is_first in chunks:
            at_cut = cut.features(network, faces.images[rows], fabric)
            features = cut.penultimate(at_cut, fabric)
            if is_first:
                gaussians.describe(label, at_cut)
                rectified = rectified and bool((at_cut >= 0).all())
            moments += Moments.of(features, labels[rows], count)
            projected += Moments.of((features @ weight).relu(), labels[rows], count)
            done += len(rows)
            progress(done, total)
        known = torch.ones(count, dtype=torch.bool)
        if faces.known is not None:
            known = faces.known.any(0).cpu()
        model, classes = fingerprint(classifier), classifier.classes
        calibration = None
        if validation is not None:
            calibration = Calibration.of(network, cut, validation, name, fabric, MOST)
        return cls(model, classes, known, gaussians, moments, projected, rectified, calibration)

    @property
    def counts(self) -> Tensor:
        """Images of each class, int64 (C,)."""
        return self.moments.counts.long()

    @property
    def projection(self) -> Tensor:
        """The random projections, float32 (P, D).

        Raises
        ------
        CrossferError
            If there was no room for their moments.
        """
        if not (count := self.projected.sums.shape[1]):
            raise CrossferError(
                "the memory file has no random projections; allow a larger file (--max-mb), or "
                "use more images"
            )
        return projection(self.moments.sums.shape[1], count)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw features at the cut, each class as often as the source has it.

        Returns
        -------
        features : Tensor
            float32 (count, D).
        labels : Tensor
            int64 (count,).
        """
        labels = torch.multinomial(
            self.moments.counts, count, replacement=True, generator=generator
        )
        drawn = self.gaussians.draw(labels, generator)
        return drawn.clamp_min(0) if self.rectified else drawn, labels

    def check(self, classifier: Classifier, file: str | Path = "the memory") -> None:
        """Refuse a classifier whose features these are not.

        Raises
        ------
        CrossferError
            If it answers with other classes, or has other weights or preprocessing; `file` is named.
        """
        if classifier.classes != self.classes:
            raise CrossferError(
                f"{file}: made for a model with the classes {', '.join(self.classes)}, not "
                f"{', '.join(classifier.classes)}; {AGAIN}"
            )
        if fingerprint(classifier) != self.model:
            raise CrossferError(
                f"{file}: made for another model (weights or preprocessing differ); {AGAIN}"
            )

    def save(self, file: str | Path) -> Path:
        """Write it, whole or not at all.

        Raises
        ------
        OSError
            If there is no room or no permission.
        """
        tensors = {
            "known": self.known,
            **{f"gaussians.{f.name}": getattr(self.gaussians, f.name) for f in fields(Gaussians)},
            **_packed("moments", self.moments),
            **_packed("projected", self.projected),
        }
        for name in tensors:
            if name.startswith("gaussians."):
                tensors[name] = tensors[name].bfloat16()
        told = {
            "format": str(FORMAT),
            "model": self.model,
            "classes": json.dumps(self.classes),
            "rectified": json.dumps(self.rectified),
        }
        if self.calibration:
            told["calibration"] = json.dumps(self.calibration.as_json())
        told["digest"] = _digest(tensors, told)
        # One text: safetensors writes several in an order of chance, and equal memories are equal files.
        save_tensors(tensors, Path(file), {SAID: json.dumps(told)})
        return Path(file)


def load_memory(file: str | Path) -> Memory:
    """Read a memory file; nothing in it is executed.

    Raises
    ------
    CrossferError
        If it is missing, not a memory file, of another version, cut off or altered.
    """
    try:
        with safe_open(file, "pt") as content:
            told = json.loads((content.metadata() or {}).get(SAID, "{}"))
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CrossferError(f"{file}: no such file; {AGAIN}") from None
    except (OSError, SafetensorError) as error:
        raise CrossferError(f"{file}: truncated or damaged ({one_line(error)}); {AGAIN}") from None
    if "digest" not in told or "format" not in told:
        raise CrossferError(f"{file}: not a memory file; {AGAIN}")
    if told["format"] != str(FORMAT):
        raise CrossferError(
            f"{file}: has format {told['format']}, but this version reads {FORMAT}; {AGAIN}"
        )
    if told.pop("digest") != _digest(tensors, told):
        raise CrossferError(f"{file}: changed since it was made (SHA-256 differs); {AGAIN}")
    gaussians = Gaussians(*(tensors[f"gaussians.{f.name}"].float() for f in fields(Gaussians)))
    calibration = json.loads(told.get("calibration", "null"))
    return Memory(
        told["model"],
        tuple(json.loads(told["classes"])),
        tensors["known"],
        gaussians,
        _unpacked("moments", tensors),
        _unpacked("projected", tensors),
        json.loads(told["rectified"]),
        Calibration.from_json(calibration) if calibration else None,
    )


def fingerprint(classifier: Classifier) -> str:
    """Return the SHA-256 of a classifier's weights and preprocessing, in hexadecimal digits."""
    sha = hashlib.sha256(repr(classifier.preprocessing).encode())
    for name, tensor in sorted(classifier.network.state_dict().items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        sha.update(name.encode() + flat.view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def projection(size: int, count: int) -> Tensor:
    """Return the random projections: float32 (size, count), of N(0, 1), the same on every machine."""
    # NumPy keeps this generator's numbers for ever.
    drawn = np.random.RandomState(0).standard_normal((count, size))
    return torch.from_numpy(drawn.T.astype(np.float32))


def sizes_within(
    max_mb: float, classes: int, at_cut: int, last: int, images: int
) -> tuple[int, int]:
    """Choose the rank of the Gaussians and the number of projections so that a memory file fits.

    Parameters
    ----------
    max_mb
        Millions of bytes.
    classes
        How many.
    at_cut, last
        Features at the cut, and those that the head is given.
    images
        How many are remembered.

    Raises
    ------
    CrossferError
        If there is no room for a Gaussian of rank 1.
    """
    one = 2 * classes * at_cut  # bytes of a direction, of the means, and of the variances

    def of_moments(size: int) -> int:
        return size * (size + 1) + 4 * size * (classes + 1)

    least = OVERHEAD + of_moments(last) + PER_MEAN * last + 3 * one
    room = int(max_mb * 1e6) - least
    if room < 0:
        raise CrossferError(
            f"--max-mb {max_mb:g}: too small; this network's memory file needs at least "
            f"{math.ceil(least / 1e4) / 100:g}"
        )
    # The largest size whose moments take half of the room: the root of a quadratic equation.
    half = 2 * classes + 2.5
    fitting = int(math.sqrt(room / 2 + half**2) - half)
    projections = min(PROJECTIONS, PER_FEATURE * last, images // PER_DIRECTION, fitting)
    if projections < last:  # no more than there are without
        projections = 0
    room -= of_moments(projections)
    return min(RANK, 1 + room // one), projections


def _in_chunks(labels: Tensor) -> list[tuple[int, Tensor, bool]]:
    """Return the rows of every class with enough images, shuffled, so many as fit into memory at a time.

    With each its class, and whether it is the first of the class.
    """
    generator, chunks = torch.Generator().manual_seed(0), []
    for label, number in enumerate(torch.bincount(labels).tolist()):
        if number >= FEWEST:
            rows = torch.nonzero(labels == label).flatten()
            rows = rows[torch.randperm(number, generator=generator)]
            parts = torch.split(rows, MOST)
            chunks += [(label, part, part is parts[0]) for part in parts]
    if not chunks:
        raise CrossferError(
            f"the source has no class with {FEWEST} training images, so the memory file would "
            "describe single images; add images"
        )
    return chunks


def _packed(name: str, moments: Moments) -> dict[str, Tensor]:
    """Return moments as they are stored: the scatter as its Cholesky factor in 16 bits.

    Of a rounded factor the product still is positive definite; rounded itself, a scatter need not be.
    """
    scatter = moments.scatter
    scale = scatter.diagonal().clamp_min(0).sqrt()
    divisor = torch.where(scale > 0, scale, 1)  # a feature that never moves has a scale of 0
    alike = scatter / torch.outer(divisor, divisor)
    alike.diagonal().clamp_(min=1).add_(JITTER)
    size = len(scale)
    rows, columns = torch.tril_indices(size, size)
    root = torch.linalg.cholesky(alike)[rows, columns]
    return {
        f"{name}.counts": moments.counts.long(),
        f"{name}.sums": moments.sums.float(),
        f"{name}.scale": scale.float(),
        f"{name}.root": root.half(),
    }


def _unpacked(name: str, tensors: dict[str, Tensor]) -> Moments:
    """Return moments of what `_packed` stored."""
    counts, sums, scale = (
        tensors[f"{name}.{part}"].double() for part in ("counts", "sums", "scale")
    )
    size = len(scale)
    root = torch.zeros(size, size, dtype=torch.float64)
    root[tuple(torch.tril_indices(size, size))] = tensors[f"{name}.root"].double()
    root *= scale[:, None]
    total, number = sums.sum(0), counts.sum()
    return Moments(counts, sums, root @ root.T + torch.outer(total, total) / number)


def _digest(tensors: dict[str, Tensor], told: dict[str, str]) -> str:
    """Return the SHA-256 of a file's content."""
    sha = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()

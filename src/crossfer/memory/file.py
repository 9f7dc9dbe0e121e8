"""The memory file: statistics that replace the source's images; it contains no image.

It contains, for each class, a low-rank Gaussian of the features at the cut (`crossfer.training.cut`); the
second moments and class sums of the penultimate features and of random ReLU projections of them; and
statistics of the source's validation faces (`crossfer.memory.calibration`).  `Memory.of` computes it from
training images, `Memory.save` and `load_memory` write and read it.  Strategies of the regime *statistics*
read it instead of the source's training images.  docs/memory.md measures what it reveals about a person.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from crossfer.errors import CrossferError, one_line
from crossfer.machine import Machine
from crossfer.memory import statistics
from crossfer.memory.calibration import Calibration
from crossfer.memory.statistics import Gaussians, Moments
from crossfer.networks import Classifier
from crossfer.networks.sources import STUDY
from crossfer.networks.weights import content_digest, save_tensors
from crossfer.progress import OnProgress, silent
from crossfer.training import Faces, specialised
from crossfer.training.cut import cut_of

FORMAT = 1
"""Format of the file; raised when it changes."""
MEMORY = "memory.safetensors"
"""Its name in a run's folder."""
SAID = "memory"
"""The metadata entry that contains, as JSON, everything except tensors."""
MAX_MB = 5.0
"""Default maximum size, in millions of bytes."""

FEWEST = 10
"""A class with fewer images is left out."""
MOST = 4096
"""Maximum number of images from which a class's Gaussian is estimated, and whose features are in memory."""
RANK, PROJECTIONS, PER_FEATURE = 32, 2000, 8
"""Maximum directions of a Gaussian, random projections, and projections per feature; more gain little."""
PER_MEAN = 14
"""Bytes of a number in the JSON of `Calibration`."""
OVERHEAD = 12_288
"""Maximum bytes of names and small numbers."""
NO_PROJECTIONS = (
    "the memory file has no random projections: it would be too large, or has too few images; make one with "
    "`crossfer remember --max-mb` and name it as memory:, or use more images"
)
AGAIN = "make it again with `crossfer remember MODEL SOURCE --out FILE`"


@dataclass(frozen=True)
class Memory:
    """Statistics that replace the source's training images.

    Parameters
    ----------
    model
        The `fingerprint` of the classifier whose features these are.
    classes
        The classifier's classes, in order.
    known
        bool (C,): the classes that the source's labels distinguish.  Of a union of datasets, those of any:
        for a closed-form head, faces of the others count as examples of "not this class".
    gaussians
        Of the features at the cut.
    moments
        Of the penultimate features.  Classes with fewer than ten images are left out of all statistics and
        have a count of 0.
    projected
        Of ReLU(x W), x the penultimate features and W from `projection`; of size 0 if there was no room.
    rectified
        Whether all features at the cut are non-negative, as after a ReLU; then samples are, too.
    calibration
        Statistics of the source's validation faces; ``None`` if they are fewer than 20.
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
        machine: Machine,
        max_mb: float = MAX_MB,
        progress: OnProgress = silent,
        validation: Faces | None = None,
        name: str = "",
    ) -> Memory:
        """Compute it in one pass over the source's training and validation images, without augmentation.

        Parameters
        ----------
        classifier
            The network that strategies will start from; it is not modified.
        faces
            The source's training set.
        machine
            Device and precision.
        max_mb
            Maximum size of the file, in millions of bytes; determines the rank of the Gaussians and the
            number of projections.
        progress
            Called with the numbers of images done and in total.
        validation
            The source's validation set, the reference of `crossfer assess`.
        name
            Name of the source.

        Raises
        ------
        CrossferError
            If the network has no vector of features, no class has ten images, or `max_mb` is too small.
        """
        network = specialised(classifier, faces.images, machine.device)
        cut, labels, count = cut_of(network), faces.labels.cpu(), len(classifier.classes)
        at_cut = cut.features(network, faces.images[:1], machine)
        last = cut.penultimate(at_cut, machine).shape[1]
        chunks = _in_chunks(labels)
        done, total = 0, sum(len(rows) for _, rows, _ in chunks)
        rank, projections = sizes_within(max_mb, count, at_cut.shape[1], last, total)
        gaussians = Gaussians.none(count, at_cut.shape[1], rank)
        moments, projected = Moments.none(count, last), Moments.none(count, projections)
        weight, rectified = projection(last, projections), True
        for label, rows, is_first in chunks:
            at_cut = cut.features(network, faces.images[rows], machine)
            features = cut.penultimate(at_cut, machine)
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
            calibration = Calibration.of(network, cut, validation, name, machine, MOST)
        return cls(model, classes, known, gaussians, moments, projected, rectified, calibration)

    @property
    def counts(self) -> Tensor:
        """Number of images of each class, int64 (C,)."""
        return self.moments.counts.long()

    @property
    def projection(self) -> Tensor:
        """The random projections, float32 (D, P).

        Raises
        ------
        CrossferError
            If there was no room for them.
        """
        if not (count := self.projected.sums.shape[1]):
            raise CrossferError(NO_PROJECTIONS)
        return projection(self.moments.sums.shape[1], count)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sample features at the cut, with the class frequencies of the source.

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
        """Refuse a classifier that the memory was not made for.

        Raises
        ------
        CrossferError
            If its classes, weights or preprocessing differ; the message names `file`.
        """
        if classifier.classes != self.classes:
            if sorted(classifier.classes) == sorted(self.classes):
                raise CrossferError(
                    f"{file}: made for a model whose classes are in the order {', '.join(self.classes)}; "
                    f"list them so under classes:, or {AGAIN}"
                )
            if set(self.classes) < set(classifier.classes):
                raise CrossferError(
                    f"{file}: made for a model with fewer classes, and cannot be combined with new ones; "
                    f"write classes: [{', '.join(self.classes)}]"
                )
            raise CrossferError(
                f"{file}: made for a model with the classes {', '.join(self.classes)}, not "
                f"{', '.join(classifier.classes)}; {AGAIN}"
            )
        if fingerprint(classifier) != self.model:
            raise CrossferError(
                f"{file}: made for another model (weights, arguments or preprocessing differ); {AGAIN}"
            )

    def save(self, file: str | Path) -> Path:
        """Write it atomically.

        Raises
        ------
        OSError
            If there is no room or no permission.
        """
        tensors = {
            "known": self.known,
            **{f"gaussians.{f.name}": getattr(self.gaussians, f.name) for f in fields(Gaussians)},
            **self.moments.packed("moments"),
            **self.projected.packed("projected"),
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
        told["digest"] = content_digest(tensors, told)
        # One entry: safetensors writes several in random order, and equal memories should be equal files.
        save_tensors(tensors, Path(file), {SAID: json.dumps(told)})
        return Path(file)


def load_memory(file: str | Path) -> Memory:
    """Read a memory file; nothing in it is executed.

    Raises
    ------
    CrossferError
        If it is missing, not a memory file, of another version, truncated or altered.
    """
    try:
        with safe_open(file, "pt") as content:
            told = json.loads((content.metadata() or {}).get(SAID, "{}"))
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CrossferError(f"{file}: no such file; {AGAIN}") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise CrossferError(f"{file}: truncated or damaged ({one_line(error)}); {AGAIN}") from None
    if not isinstance(told, dict) or "digest" not in told or "format" not in told:
        raise CrossferError(f"{file}: not a memory file; {AGAIN}")
    if told["format"] != str(FORMAT):
        raise CrossferError(
            f"{file}: has format {told['format']}, but this version reads {FORMAT}; {AGAIN}"
        )
    if told.pop("digest") != content_digest(tensors, told):
        raise CrossferError(f"{file}: changed since it was made (SHA-256 differs); {AGAIN}")
    gaussians = Gaussians(*(tensors[f"gaussians.{f.name}"].float() for f in fields(Gaussians)))
    calibration = json.loads(told.get("calibration", "null"))
    return Memory(
        told["model"],
        tuple(json.loads(told["classes"])),
        tensors["known"],
        gaussians,
        Moments.unpacked("moments", tensors),
        Moments.unpacked("projected", tensors),
        json.loads(told["rectified"]),
        Calibration.from_json(calibration) if calibration else None,
    )


def fingerprint(classifier: Classifier) -> str:
    """Return the SHA-256 of a classifier's weights, arguments and preprocessing, in hexadecimal digits."""
    sha = hashlib.sha256(repr(classifier.preprocessing).encode())
    # The study's network has only its width, which the weights show.
    if (spec := classifier.spec) and spec.arguments and spec.network != STUDY:
        sha.update(json.dumps(dict(spec.arguments), sort_keys=True).encode())
    for name, tensor in sorted(classifier.network.state_dict().items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        sha.update(name.encode() + flat.view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def check_projections(classifier: Classifier, labels: Tensor, machine: Machine) -> None:
    """Refuse a source whose memory file, of the default size, would have no random projections.

    Parameters
    ----------
    classifier
        The network, whose weights do not matter.
    labels
        Of the source's training images, int64 (N,).
    machine
        Where it is.

    Raises
    ------
    CrossferError
        If there would be none, or no memory file.
    """
    cut = cut_of(classifier)
    one = torch.zeros(1, *classifier.preprocessing.image_shape, dtype=torch.uint8)
    at_cut = cut.features(classifier, one, machine)
    last = cut.penultimate(at_cut, machine).shape[1]
    images = sum(len(rows) for _, rows, _ in _in_chunks(labels))
    sizes = sizes_within(MAX_MB, len(classifier.classes), at_cut.shape[1], last, images)
    if not sizes[1]:
        raise CrossferError(NO_PROJECTIONS)


def projection(size: int, count: int) -> Tensor:
    """Return the random projections: float32 (size, count), of N(0, 1), the same on every machine."""
    # NumPy guarantees that this generator's numbers never change.
    drawn = np.random.RandomState(0).standard_normal((count, size))
    return torch.from_numpy(drawn.T.astype(np.float32))


def sizes_within(
    max_mb: float, classes: int, at_cut: int, last: int, images: int
) -> tuple[int, int]:
    """Choose the rank of the Gaussians and the number of projections for a maximum file size.

    Parameters
    ----------
    max_mb
        Millions of bytes.
    classes
        Number of classes.
    at_cut, last
        Number of features at the cut, and of penultimate features.
    images
        Number of images.

    Raises
    ------
    CrossferError
        If there is no room for Gaussians of rank 1.
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
    projections = min(PROJECTIONS, PER_FEATURE * last, images // statistics.PER_DIRECTION, fitting)
    if projections < last:  # no more than there are without
        projections = 0
    room -= of_moments(projections)
    return min(RANK, 1 + room // one), projections


def _in_chunks(labels: Tensor) -> list[tuple[int, Tensor, bool]]:
    """Return shuffled rows of every class with enough images, in chunks of at most `MOST`.

    Each chunk has its class, its rows and whether it is the first of the class.
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

"""The typed rows of ``results.json``.

Accuracies, recalls and F1 are in per cent, changes and calibration errors in points, times in seconds.
What is listed by class is in the order of `Results.classes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final, Literal

from crossfer.terms import PastData, Side

FORMAT: Final = 5
"""Of ``results.json``; raised whenever a row changes."""

Interval = tuple[float, float]


class Row:
    """Base of all rows: read back strictly, its fields described in the schema by their docstrings."""

    __slots__ = ()
    __pydantic_config__: ClassVar = {"extra": "forbid", "use_attribute_docstrings": True}


@dataclass(frozen=True, slots=True)
class Metrics(Row):
    """A network on one set of images; of several seeds, the mean."""

    images: int
    accuracy: float
    balanced_accuracy: float
    """Mean recall over the classes that have images."""
    macro_f1: float
    """Mean F1 over the same classes."""
    calibration_error: float
    """Expected calibration error, 15 bins."""
    recall: tuple[float | None, ...]
    """Of each class; None where it has no image."""
    confusion: tuple[tuple[int, ...], ...]
    """Entry (i, j): images of class i taken for class j; summed over seeds."""
    deviation: float | None = None
    """Standard deviation of the accuracy between seeds; None for one seed."""
    interval: Interval | None = None
    """95 % interval of the accuracy; on test sets only, for choices are made on the others."""


@dataclass(frozen=True, slots=True)
class Measurements(Row):
    """A network on one dataset."""

    validation: Metrics
    test: Metrics
    parts: Mapping[str, float]
    """Test accuracy on each dataset, where several are measured as one."""


@dataclass(frozen=True, slots=True)
class FlippedImage(Row):
    """A test image about which a network became right, or stopped being right."""

    row: int
    """In the dataset's sample table."""
    origin: str
    label: str
    before: str
    """What the baseline said."""
    after: str


@dataclass(frozen=True, slots=True)
class Flips(Row):
    """The test images that flipped: (positive − negative) / images is the change of accuracy, exactly."""

    positive: tuple[float, ...]
    """Wrong before and right now, by true class; mean over seeds."""
    negative: tuple[float, ...]
    """Right before and wrong now, by true class; mean over seeds."""
    positive_examples: tuple[FlippedImage, ...]
    """Where the network changed its mind most; of the first seed."""
    negative_examples: tuple[FlippedImage, ...]


@dataclass(frozen=True, slots=True)
class ClassChange(Row):
    """What an update did to the recall of one class on a test set."""

    images: int
    points: float
    interval: Interval | None = None
    """95 %; on means over seeds only."""


@dataclass(frozen=True, slots=True)
class Change(Row):
    """What an update did on one test set, against the baseline of the same seeds."""

    points: float
    classes: tuple[ClassChange | None, ...]
    """None for a class without images."""
    flips: Flips
    interval: Interval | None = None
    """95 %."""


@dataclass(frozen=True, slots=True)
class Cost(Row):
    """What a network took, from the baseline on."""

    images_seen: float
    flop: float
    """As if frozen layers were computed anew each time."""
    seconds: float
    evaluation_seconds: float
    peak_memory_bytes: float


@dataclass(frozen=True, slots=True)
class Result(Row):
    """A strategy on the source and on a target: one network, or the mean over seeds."""

    target: str
    fraction: float | None
    """Share of the target training set; None for the baseline and what never met the target."""
    strategy: str
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    """Key of each seed's run; on a target that is measured by folds, of each fold's."""
    on_source: Measurements
    on_target: Measurements
    memory_integrity: Change
    """Of the accuracy on the source's test set."""
    gain: Change
    """Of the accuracy on the target's test set."""
    cost: Cost

    def on(self, side: Side) -> Measurements:
        """Return what was measured on a side."""
        return self.on_source if side == "source" else self.on_target

    def change(self, side: Side) -> Change:
        """Return the memory integrity, or the gain."""
        return self.memory_integrity if side == "source" else self.gain

    @property
    def balance(self) -> float:
        """What seeds and strategies are chosen by: the mean of both validation accuracies."""
        return (self.on_source.validation.accuracy + self.on_target.validation.accuracy) / 2


@dataclass(frozen=True, slots=True)
class Mean(Row):
    """A mean over targets."""

    points: float
    interval: Interval | None = None
    """95 %, of these targets; None where the targets share no seed."""


@dataclass(frozen=True, slots=True)
class Average(Row):
    """A strategy over all targets, or ``fine-tunings``: the mean of FC, FC+CL and RE, if there."""

    fraction: float
    strategy: str
    targets: tuple[str, ...]
    memory_integrity: Mean
    gain: Mean

    def change(self, side: Side) -> Mean:
        """Return the memory integrity, or the gain."""
        return self.memory_integrity if side == "source" else self.gain


@dataclass(frozen=True, slots=True)
class Paired(Row):
    """Two networks, or strategies of several seeds, on the same test images."""

    difference: float
    """Accuracy of the first minus the second."""
    interval: Interval
    """95 %, over images, people and seeds."""
    gained: float
    """Images that only the first is right about; mean over seeds."""
    lost: float
    """Images that only the second is right about; mean over seeds."""
    people: int | None
    """Subjects in the test set; None where they are not known."""
    p: float
    """That such a difference is chance, for other images, people and trainings; 1 with a single person."""
    test: Literal["McNemar", "bootstrap"]
    """Where `p` comes from."""
    p_images: float | None
    """Exact McNemar test: for these networks and these very images; None for several seeds."""


@dataclass(frozen=True, slots=True)
class StrategyComparison(Row):
    """Two strategies on one test set."""

    target: str
    fraction: float | None
    side: Side
    strategy: str
    against: str
    paired: Paired
    p_holm: float = 1.0
    """`Paired.p` corrected for all comparisons that ask the same (Holm)."""
    p_images_holm: float | None = None
    """`Paired.p_images`, corrected likewise."""


@dataclass(frozen=True, slots=True)
class Difference(Row):
    """Two networks on the same images: new minus old, and whether it is real."""

    paired: Paired
    p_holm: float
    """`Paired.p` corrected for all differences of its kind in the comparison (Holm): datasets, or groups."""
    p_images_holm: float | None
    """`Paired.p_images`, corrected likewise."""


@dataclass(frozen=True, slots=True)
class Ahead(Row):
    """Two strategies on a validation set, at the largest fraction: the recommendation is chosen by it."""

    target: str
    side: Side
    strategy: str
    against: str
    points: float
    """Accuracy of the first minus the second, mean over seeds."""
    error: float
    """Standard error of `points`: paired, of whole people."""
    images: int
    people: int | None
    """None where they are not known."""


@dataclass(frozen=True, slots=True)
class Recommendation(Row):
    """The strategy to use for a target, chosen on validation data, and the network to ship."""

    target: str
    strategy: str
    fraction: float | None
    seed: int
    """Of the network to ship: the seed with the best `validation_balance`."""
    run: str
    """Key of its run; by folds, of the first, for folds differ in their people and none is better."""
    validation_balance: float
    """Mean of both validation accuracies, over seeds."""
    best: str
    """First on the validation data; in doubt the baseline is recommended all the same."""
    behind: float
    """Points that the recommended strategy is behind it there."""
    behind_error: float
    """Standard error of `behind`."""
    memory_integrity: float
    """On the test set; it decided nothing."""
    gain: float
    """On the test set; it decided nothing."""
    limit: float | None
    """Points that it was allowed to lose on the source; None: both sides counted the same."""
    ruled_out: Mapping[str, tuple[str, ...]]
    """Strategies with the reasons why not."""
    front: tuple[str, ...]
    """Strategies that none beats on both test sets."""


@dataclass(frozen=True, slots=True)
class Chain(Row):
    """One strategy through all targets, one after the other."""

    strategy: str
    seed: int
    fraction: float
    datasets: tuple[str, ...]
    """The source first."""
    runs: tuple[str, ...]
    accuracy: tuple[tuple[float, ...], ...]
    """Entry (i, j): on dataset j after step i; step 0 is the baseline."""
    average_accuracy: float
    backward_transfer: float
    forgetting: float
    forward_transfer: float


@dataclass(frozen=True, slots=True)
class LeftOut(Row):
    """A network that was trained on all datasets but one."""

    left_out: str
    seed: int
    run: str
    accuracy: Mapping[str, float]
    """On every dataset's test set."""


@dataclass(frozen=True, slots=True)
class StrategyFacts(Row):
    """What a strategy of the experiment is."""

    name: str
    start: str
    layers: str
    data: str
    about: str
    past_data: PastData
    exemplars: int | None
    """How many source images of each class it needs, where `past_data` is some per class."""


@dataclass(frozen=True, slots=True)
class Division(Row):
    """How a dataset was divided into training, validation and test set."""

    how: str
    asked: Mapping[str, int] | None
    """Images asked for, by split; None where the division was given."""
    subjects_in_several_splits: int


@dataclass(frozen=True, slots=True)
class Suggestions(Row):
    """How far the labels of faces are what a model suggested to whoever gave them."""

    shown: int
    """Labels given in sight of a suggestion."""
    accepted: int
    """Those of them that are the suggestion."""
    blind: int
    """Labels given without seeing it."""
    same: int
    """Those of them that are what the model says all the same."""


@dataclass(frozen=True, slots=True)
class DatasetFacts(Row):
    """What a dataset of the experiment is."""

    role: Side
    name: str
    title: str
    stand_in: bool
    """Whether its faces are drawn."""
    fingerprint: str
    classes: tuple[str, ...]
    """Those of `Results.classes` that it tells apart."""
    counts: Mapping[str, Mapping[str, int]]
    """Images by split and class."""
    images: int
    subjects: int
    """0 where they are not known."""
    test_subjects: int | None
    """In the test set; None where they are not known."""
    split: Division
    skipped: Mapping[str, int]
    """Images left out, by reason."""
    left_out: Mapping[str, int]
    """Images whose label belongs to none of the classes, by label."""
    faces: Mapping[str, Any]
    """How faces were found and framed."""
    licence: str
    citation: str
    parts: tuple[str, ...]
    """The targets that this is made of, where it is several as one."""
    folds: tuple[str, ...] = ()
    """Where it is measured by folds, the fingerprint of each: all images are test images."""
    suggestions: Suggestions | None = None
    """Where a model suggested labels."""


@dataclass(frozen=True, slots=True)
class RunFacts(Row):
    """A finished run: what its ``run.json`` says."""

    key: str
    """Hash of everything that determines the weights."""
    label: str
    strategy: str
    about: str
    target: str | None
    fraction: float | None
    seed: int
    identity: Mapping[str, Any]
    """What the key was made of."""
    kept_epoch: int
    merged: Mapping[str, Any]
    chosen: Mapping[str, Any] | None
    """Which epoch or mixture was kept, by how many images of how many people, and how clear that was."""
    training_images: int
    parameters: int
    trained_parameters: int
    cost: Cost
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    folder: str = ""
    """Where it lies: relative to the experiment's folder, or absolute if it is outside."""


@dataclass(frozen=True, slots=True)
class FailedRun(Row):
    """A run that failed."""

    key: str
    label: str
    strategy: str
    target: str | None
    fraction: float | None
    seed: int
    why: str


@dataclass(frozen=True, slots=True)
class Place(Row):
    """A split of a dataset."""

    dataset: str
    split: str


@dataclass(frozen=True, slots=True)
class Copies(Row):
    """Some copies, by where they come from and how they are labelled."""

    origins: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overlap(Row):
    """Two places that share images."""

    first: Place
    second: Place
    images: int
    """In the second place."""
    exact: int
    """Of these, with the same pixels in the first."""
    near: int
    """Of the others, with a near copy in the first."""
    relabelled: int
    """With a copy that has another label."""
    leaks: bool
    """Whether the splits differ."""
    examples: tuple[Copies, ...]


@dataclass(frozen=True, slots=True)
class Leakage(Row):
    """Which images of an experiment stand in more than one place."""

    method: Mapping[str, Any]
    images: Mapping[str, int]
    subjects: Mapping[str, Mapping[str, tuple[str, ...]]]
    """By dataset, those in more than one split, with these splits."""
    overlaps: tuple[Overlap, ...]
    in_training: Mapping[str, int]
    """By dataset, test images with a copy in any training set."""
    dropped: Mapping[str, tuple[int, ...]]
    """By dataset, rows of test images that do not count."""


@dataclass(frozen=True, slots=True)
class Results(Row):
    """Everything that an experiment found out: the content of ``results.json``."""

    format: Literal[5]
    crossfer: str
    """Version that wrote it."""
    name: str
    stand_in: bool
    """Whether any of the faces are drawn: then the numbers say nothing about real ones."""
    classes: tuple[str, ...]
    config: Mapping[str, Any]
    """The experiment's configuration."""
    machine: Mapping[str, Any]
    datasets: tuple[DatasetFacts, ...]
    """The source first."""
    leakage: Leakage | None
    """None where copies were not looked for."""
    strategies: tuple[StrategyFacts, ...]
    runs: tuple[RunFacts, ...]
    failed: tuple[FailedRun, ...]
    results: tuple[Result, ...]
    """One network each."""
    summary: tuple[Result, ...]
    """Means over seeds."""
    averages: tuple[Average, ...]
    """Means over targets, as in the study's sections III.1 and III.2."""
    comparisons: tuple[StrategyComparison, ...]
    validation: tuple[Ahead, ...]
    recommendations: tuple[Recommendation, ...]
    in_turn: tuple[Chain, ...]
    leave_one_out: tuple[LeftOut, ...]
    new_classes: tuple[str, ...] = ()
    """Classes that the baseline cannot say.  They do not count on the source: memory integrity is over the
    others."""
    network: tuple[str, ...] = ()
    """What was found when the network was tried: how it reads pixels, what its outputs stand for, and what
    each strategy trains of it."""

    @property
    def source(self) -> DatasetFacts:
        """The past."""
        return self.datasets[0]

    @property
    def targets(self) -> tuple[DatasetFacts, ...]:
        """The new faces."""
        return self.datasets[1:]

    def run(self, key: str) -> RunFacts:
        """Return a finished run by its key."""
        return next(run for run in self.runs if run.key == key)

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)

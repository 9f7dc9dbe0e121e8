"""What is lost by choosing with few validation images?  Points of accuracy below the best candidate.

    python benchmarks/selection.py                                       # simulated candidates
    python benchmarks/selection.py --real data/fer2013 data/ck48         # real ones, trained in half an hour

``docs/statistics.md`` has the tables.  The true worth of a candidate is the mean of its true accuracies on
the source and on the target.  Compared are the *old* rule (the highest mean validation accuracy, the lower
loss where that ties), *counts* (the same as crossfer, by right and wrong instead of losses), *crossfer*
(`crossfer.selection`; trials of a search, whose confidence is their own, by right and wrong), and what is
kept *in doubt* (the last epoch, half of each network, the first trial), without looking.

*Simulated*: a candidate is right about an image where its skill, the image's ease, the person's ease and what
is peculiar to the candidate and the image, or the person, are above zero.  *Real*: networks of a quarter of
the width; of the target 35 people train, and the others are divided by chance into a validation set of so
many images, of whole people but the last, and the rest, which is the truth.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from math import erf, sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossfer.adaptation import untrained
from crossfer.datasets import Dataset, open_dataset
from crossfer.machine import Machine
from crossfer.memory.merging import ALPHAS, interpolate
from crossfer.networks import Classifier, study_cnn
from crossfer.selection import Candidate, choose, lead
from crossfer.training import Faces, Mixture, Recipe, State, specialised, train
from crossfer.training.prediction import judge
from crossfer.training.recipe import FINE_TUNING, FROM_SCRATCH

Array = NDArray[np.float64]
SIZES = {15: 15, 50: 10, 200: 10}
"""Validation images of the target, and how many of them are of one person."""
SOURCE = 3589
RULES = ("old", "counts", "crossfer", "in doubt")


class Answers(NamedTuple):
    """Of all candidates on one set: float (candidates, images) each, and who is in the images."""

    right: Array
    likelihood: Array
    subjects: NDArray[np.int64] | None


class Case(NamedTuple):
    """What is chosen among, by what, and how good each candidate truly is, 0–1."""

    kind: str
    sets: dict[str, Answers]
    truth: Array


def kept_in_doubt(kind: str, candidates: int) -> int:
    """Return the candidate to keep unless another is shown to be better."""
    return {"mixtures": candidates // 2, "trials": 0}.get(kind, candidates - 1)


def chosen(case: Case, rule: str) -> int:
    """Return the candidate that a rule keeps."""
    count, sets = len(case.truth), case.sets
    doubt = kept_in_doubt(case.kind, count)
    if rule == "in doubt":
        return doubt
    if rule == "old":
        accuracy = sum((answers.right.mean(1) for answers in sets.values()), np.zeros(count))
        losses = (-np.log(answers.likelihood.clip(1e-4)).mean(1) for answers in sets.values())
        loss = sum(losses, np.zeros(count))
        return max(range(count), key=lambda index: (accuracy[index], -loss[index]))
    subjects = {name: answers.subjects for name, answers in sets.items()}
    likelihoods, rights = (
        [{name: getattr(a, part)[index] for name, a in sets.items()} for index in range(count)]
        for part in ("likelihood", "right")
    )
    if case.kind == "trials":
        kept = 0
        for index in range(1, count):
            kept = index if lead(rights[index], rights[kept], subjects).shown else kept
        return kept
    preferred = sorted(range(count), key=lambda index: abs(index - doubt))
    candidates = list(map(Candidate, rights if rule == "counts" else likelihoods, rights))
    return choose(candidates, subjects, preferred).index


def simulated(kind: str, images: int, rng: np.random.Generator, count: int = 12) -> Case:
    """Draw candidates of a kind and their answers."""
    skills = dict(zip(("source", "target"), _skills(kind, count, rng), strict=True))
    sets, truth = {}, np.zeros(count)
    for name, skill in skills.items():
        number, each = (SOURCE, 1) if name == "source" else (images, SIZES[images])
        subjects = np.arange(number) // each
        people = subjects[-1] + 1
        ease = rng.normal(0, 1, number)
        own = np.cumsum(rng.normal(0, 0.15, (count, number)), 0)  # neighbours agree
        own -= own.mean(0)
        variance = 1 + own.var()
        if each > 1:
            ease = ease + rng.normal(0, 0.6, people)[subjects]
            own += rng.normal(0, 0.12, (count, people))[:, subjects]
            variance += 0.6**2 + 0.12**2
        margin = skill[:, None] + ease + own
        sure = 1 + 2 * np.linspace(0, 1, count) if kind == "too sure" else np.ones(count)
        likelihood = 1 / (1 + np.exp(-2.5 * sure[:, None] * margin))
        sets[name] = Answers(margin > 0, likelihood, subjects if each > 1 else None)
        truth += [(1 + erf(s / sqrt(2 * variance))) / 4 for s in skill]
    return Case(kind, sets, truth)


def _skills(kind: str, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return how good each candidate is on the source and on the target."""
    t = np.linspace(0, 1, count)
    unrest = np.cos(t * np.pi / 2)  # epochs differ less as the learning rate falls

    def uneven(size: float) -> Array:
        return np.asarray(rng.normal(0, size, count) * unrest)

    if kind == "from scratch":
        rise = 1 - np.exp(-3 * t)
        return 1.2 * rise - 0.8 + uneven(0.05), 1.5 * rise - 0.5 + uneven(0.1)
    if kind == "too sure":
        return 0.25 * t + 0.3 + uneven(0.03), 0.3 * t + 0.6 + uneven(0.05)
    if kind == "fine-tuning":
        lost = rng.uniform(0, 0.5) * (1 - np.exp(-4 * t))
        return 0.3 - lost + uneven(0.04), 1.4 - np.exp(-5 * t) + uneven(0.08)
    if kind == "overfitting":
        past = (t - rng.uniform(0.3, 0.9)) ** 2
        return 0.5 - rng.uniform() * past + uneven(0.05), 0.5 - rng.uniform() * past + uneven(0.05)
    if kind == "mixtures":
        before = 0.4 - rng.uniform(0.1, 0.6) * t**2
        return before, 0.4 + rng.uniform(0.2, 1) * (1 - (1 - t) ** 2)
    return 0.3 + rng.normal(0, 0.12, count), 0.8 + rng.normal(0, 0.2, count)


KINDS = ("from scratch", "too sure", "fine-tuning", "overfitting", "mixtures", "trials")


Curves = dict[str, dict[str, Answers]]
"""For each kind of candidates and each side, their answers about all images that are left to measure."""


def divided(curves: Curves, images: int, rng: np.random.Generator) -> Iterator[Case]:
    """Divide the images by chance into validation sets and the rest, which tells the truth."""
    people = curves["RE"]["target"].subjects
    assert people is not None
    order = np.concatenate(
        [np.flatnonzero(people == p) for p in rng.permutation(np.unique(people))]
    )
    first = {"target": order[:images]}
    rest = {"target": np.flatnonzero(~np.isin(people, people[first["target"]]))}
    shuffled = rng.permutation(curves["FU"]["source"].right.shape[1])
    first["source"], rest["source"] = np.array_split(shuffled, 2)
    for kind, sides in curves.items():
        sets = {
            side: Answers(
                answers.right[:, first[side]],
                answers.likelihood[:, first[side]],
                None if answers.subjects is None else answers.subjects[first[side]],
            )
            for side, answers in sides.items()
        }
        truth = [answers.right[:, rest[side]].mean(1) for side, answers in sides.items()]
        yield Case(kind, sets, np.mean(truth, 0))


def learning_curves(source: Dataset, target: Dataset, seed: int = 0) -> Curves:
    """Train networks, and measure every epoch and every mixture.

    BL is measured on the target too, as FU, MIX and mixtures are; RE, as it would be, on the target alone.
    """
    machine, rng = Machine.of("cpu", "32-true"), np.random.default_rng(seed)
    known = np.array([str(subject) for subject in target.subjects])
    taught = np.isin(known, rng.permutation(np.unique(known))[:35])

    def taken(dataset: Dataset, rows: NDArray[np.int64]) -> Faces:
        return Faces.from_numpy(
            dataset.images, dataset.labels, dataset.classes, rows, len(dataset.class_set)
        )

    old = taken(source, rng.permutation(source.rows("training"))[:6000])
    new = taken(target, np.flatnonzero(taught))
    unseen = np.append(source.rows("validation"), source.rows("test"))
    measured = {
        "source": taken(source, rng.permutation(unseen)[:3000]),
        "target": taken(target, np.flatnonzero(~taught)),
    }
    people = np.unique(known[~taught], return_inverse=True)[1]
    found: dict[str, list[dict[str, tuple[Array, Array]]]] = {}

    def note(kind: str, model: Classifier) -> None:
        network = specialised(model, old.images, machine.device)
        judged = {side: judge(network, faces, machine) for side, faces in measured.items()}
        answers = {
            side: (r.double().numpy(), p.double().numpy()) for side, (r, p) in judged.items()
        }
        found.setdefault(kind, []).append(answers)

    def trained(kind: str, start: Classifier, faces: Faces, recipe: Recipe) -> Classifier:
        model = copy.deepcopy(start)

        def on_state(standing: Callable[[], State]) -> None:
            if not standing().step:
                model.load_state_dict(standing().weights)
                note(kind, model)

        return train(start, faces, {}, recipe, seed, machine, keep="last", on_state=on_state).model

    fresh = untrained(lambda: Classifier(study_cnn(0.25)), seed)
    baseline = trained("BL", fresh, old, replace(FROM_SCRATCH, epochs=14))
    tuned = trained("RE", baseline, new, replace(FINE_TUNING, epochs=15))
    trained("MIX", baseline, Mixture.of(new, old, 0.25), Recipe(8, 64, 0.01, warmup=0.1))
    trained("FU", fresh, old + new, replace(FROM_SCRATCH, epochs=12))
    mixed = copy.deepcopy(tuned)
    for alpha in ALPHAS:
        mixed.load_state_dict(interpolate(baseline.state_dict(), tuned.state_dict(), alpha))
        note("mixtures", mixed)
    return {
        kind: {
            side: Answers(
                np.stack([row[side][0] for row in rows]),
                np.stack([row[side][1] for row in rows]),
                people if side == "target" else None,
            )
            for side in ({"RE": ["target"], "BL": ["source"]}.get(kind, list(measured)))
        }
        for kind, rows in found.items()
    }


def table(drawn: Iterable[tuple[int, Case]]) -> None:
    """Print the mean loss against the best candidate, in points, with 95 % intervals of these means."""
    lost: dict[tuple[str, int], dict[str, list[float]]] = {}
    for images, case in drawn:
        cell = lost.setdefault((case.kind, images), {rule: [] for rule in RULES})
        for rule, values in cell.items():
            values.append(100 * (case.truth.max() - case.truth[chosen(case, rule)]))
    kinds = dict.fromkeys(kind for kind, _ in lost)
    print("| candidates | images | " + " | ".join(RULES) + " |\n" + "|---" * 6 + "|")
    rows = [(kind, [kind], images) for kind in kinds for images in SIZES]
    for name, members, images in [*rows, *(("all", list(kinds), images) for images in SIZES)]:
        cells = []
        for rule in RULES:
            values = np.concatenate([lost[kind, images][rule] for kind in members])
            error = 1.96 * values.std(ddof=1) / sqrt(len(values))
            cells.append(f"{values.mean():.2f} ± {error:.2f}")
        print(f"| {name} | {images} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--real", nargs=2, type=Path, metavar=("SOURCE", "TARGET"))
    parser.add_argument("--repetitions", type=int, default=200)
    arguments = parser.parse_args()
    rng, repetitions = np.random.default_rng(0), range(arguments.repetitions)
    if arguments.real:
        source, target = map(open_dataset, arguments.real)
        curves = learning_curves(source, target)
        table((n, case) for n in SIZES for _ in repetitions for case in divided(curves, n, rng))
    else:
        table((n, simulated(kind, n, rng)) for kind in KINDS for n in SIZES for _ in repetitions)


if __name__ == "__main__":
    main()

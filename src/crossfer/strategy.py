"""A strategy: a point in a small space.

"Where training starts, which layers train, on which data" (section II.B), what holds the network back, and
whether it is merged with what it was: a strategy is a choice on each of these axes, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Literal, get_args

from crossfer.memory.closed_form import SLDA, ClosedForm, Ridge
from crossfer.memory.exemplars import ExemplarChoice
from crossfer.memory.merging import Merge
from crossfer.memory.penalties import EWC, L2SP, DarkExperience, Penalty, SourceDistillation
from crossfer.memory.replay import FeatureReplay
from crossfer.memory.routing import Router
from crossfer.strict import Strict
from crossfer.terms import PastData
from crossfer.training.recipe import FINE_TUNING, FINE_TUNING_LAST_LAYERS, FROM_SCRATCH, Recipe
from crossfer.unlabelled import Shot, Tent, Unlabelled

FromMemory = FeatureReplay | Ridge | SLDA | Router
"""What learns from a memory file and the target."""

ABOVE_ZERO = frozenset({"temperature", "samples", "kept", "draws", "share", "ridge", "shrinkage"})
"""Numbers of a penalty, of a memory or of learning without labels that cannot be 0."""

REPLAY = Recipe(epochs=16, batch_size=64, learning_rate=0.02, warmup=0.1, averaging=0.98, views=4)
"""Of the fully connected layers, beside features drawn from a memory."""


class _ByKind:
    """Tells Pydantic, which alone needs it, that ``kind`` says which of several dataclasses a mapping is."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import Field

        return handler.generate_schema(Annotated[source, Field(discriminator="kind")])


BY_KIND = _ByKind()

Layers = Literal["none", "norms", "head", "FC", "FC+CL", "body", "all"]
Data = Literal["source", "target", "source+target"]
CHOICES = {"layers": Layers, "data": Data, "choice": ExemplarChoice, "merge": Merge}
PARTS = {"penalty": Penalty, "memory": FromMemory, "unlabelled": Unlabelled, "recipe": Recipe}


@dataclass(frozen=True)
class Strategy(Strict):
    """A way to update a network on new faces.

    Parameters
    ----------
    name
        Short name, used in tables and configurations.
    start
        ``"random"``: random weights; ``"baseline"``: the weights of BL; or the name of another strategy:
        its result. BL itself is ``"deployed"`` if its weights are given.
    layers
        Which layers train: a key of `crossfer.networks.LAYERS`.
    data
        The training sets: the source's, the target's, or both.
    about
        One sentence that describes it.
    exemplars
        Number of source images per class that are available; ``None``: all.
    choice
        How the exemplars are selected.
    share
        Fraction of target images in every batch, the rest being source images; ``None``: the union of both
        in random order.
    penalty
        A term added to the loss against forgetting.
    merge
        Whether the weights are interpolated with the baseline's at the end, with a weight selected on both
        validation sets: uniformly, or as one of `crossfer.memory.merging.Merge`.
    memory
        How it uses a memory file (`crossfer.memory.file`).
    rank
        Rank of adapters for the large linear layers among the trained ones; other layers but the last are
        frozen (`crossfer.networks.adapters`). ``None``: no adapters.
    unlabelled
        How it learns from the target's images without labels. Labels are not used for selection either: the
        last epoch is kept, whatever the experiment's `selection`.
    paper
        The paper that describes it.
    recipe
        The default hyper-parameters; in a configuration, changes to those that it would have by default.
    """

    NOT_IDENTITY: ClassVar = frozenset({"name", "about", "paper", "recipe", "start"})
    """What does not determine a run's weights beside its recipe and the run that it starts from."""

    name: str
    start: str
    layers: Layers
    data: Data
    about: str = field(default="", compare=False)
    exemplars: int | None = None
    choice: ExemplarChoice = "random"
    share: float | None = None
    penalty: Annotated[Penalty | None, BY_KIND] = None
    merge: Literal[False, True, Merge] = False
    memory: Annotated[FromMemory | None, BY_KIND] = None
    rank: int | None = None
    unlabelled: Annotated[Unlabelled | None, BY_KIND] = None
    paper: str = field(default="", compare=False)
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise ValueError(f"{self.name}: {problem}")

    def _problems(self) -> Iterator[str]:
        """Yield what is no choice, and what does not go together."""
        for key, kind in PARTS.items():
            value = getattr(self, key)
            if value is not None and not isinstance(value, kind):
                names = " or ".join(f"{one.__name__}(…)" for one in get_args(kind) or (kind,))
                yield f"{key}: {value!r}: write {names}"
        for key, kind in CHOICES.items():
            value = getattr(self, key)
            if not isinstance(value, bool) and value not in get_args(kind):
                yield f"{key}: {value}: choose among {', '.join(get_args(kind))}"
        both = self.data == "source+target"
        if self.exemplars is not None and (self.exemplars < 1 or not both):
            yield "exemplars: must be at least 1, with data: source+target"
        if self.share is not None and not (0 < self.share < 1 and both):
            yield "share: must be between 0 and 1, with data: source+target"
        if isinstance(self.penalty, SourceDistillation | DarkExperience) and self.share is None:
            yield f"{self.penalty.kind}: needs a share, to separate source and target images"
        if self.merge == "Fisher" and not both:
            yield "Fisher: needs images of both datasets; set data: source+target"
        if self.memory and (self.data != "target" or self.penalty or self.merge or self.unlabelled):
            yield "memory: needs data: target, and cannot be combined with other ways of learning"
        if self.memory and self.layers not in self.memory.LAYERS:
            yield f"{self.memory.kind}: layers: {self.memory.LAYERS[0]}"
        if isinstance(self.memory, ClosedForm) and self.start != "baseline":
            yield f"{self.memory.kind}: start: baseline, whose features the memory file describes"
        if isinstance(self.memory, Router) and self.start in ("random", "baseline"):
            yield "router: start: another strategy, whose network answers the new faces"
        plain = not (self.merge or self.penalty or self.rank)
        if self.start == "random" and not (plain and self.layers == "all"):
            yield "a strategy that starts at random must train all layers, without penalty, merge or rank"
        if self.unlabelled:
            if self.data != "target" or self.penalty or self.merge or self.start == "random":
                yield (
                    "unlabelled: needs data: target and a trained network to start from, without "
                    "penalty or merge"
                )
            if self.unlabelled.trains == (self.layers == "none"):
                what = "layers to train" if self.unlabelled.trains else "layers: none"
                yield f"{self.unlabelled.kind}: needs {what}"
        if isinstance(self.unlabelled, Shot) and self.layers != "body":
            yield f"{self.unlabelled.kind}: layers: body, since the last layer stays as it is"
        if isinstance(self.unlabelled, Tent) and self.layers != "norms" and not self.rank:
            yield f"{self.unlabelled.kind}: layers: norms"
        if self.rank is not None and (self.rank < 1 or self.layers not in ("FC", "FC+CL", "all")):
            yield "rank: must be at least 1, with layers: FC, FC+CL or all"
        if self.rank and self.unlabelled:
            yield f"rank: has no effect on {self.unlabelled.kind}; remove one of the two"
        if self.choice != "random" and self.exemplars is None:
            yield "choice: only for exemplars; set their number, or remove it"
        if self.recipe and not self.trains:
            yield "layers: none trains nothing, so recipe has no effect"
        if self.exemplars and self.layers == "none" and not self.merge:
            yield "layers: none trains nothing, so exemplars have no effect"
        if self.layers == "none" and (self.penalty or self.share is not None):
            yield f"layers: none trains nothing, so {'penalty' if self.penalty else 'share'} has no effect"
        if self.rank and isinstance(self.penalty, L2SP | EWC):
            yield (
                f"rank: {self.penalty.kind} penalises changed weights, which adapters do not have; "
                "remove one of the two"
            )
        if self.start == self.name:
            yield "starts from itself"
        idle = self.layers == "none" and not (self.memory or self.unlabelled)
        # With images of both sides, merging estimates the batch statistics again.
        alone = not self.merge or (self.start == "baseline" and not both)
        if idle and alone and self.start != "deployed":
            yield f"changes nothing: it would be {self.start} again; choose layers to train"
        for part in filter(None, (self.penalty, self.memory, self.unlabelled)):
            for name, value in asdict(part).items():
                if isinstance(value, int | float) and not 0 <= value < float("inf"):
                    yield f"{part.kind}: {name} is {value:g}: must be a number, 0 or more"
                if value == 0 and name in ABOVE_ZERO:
                    yield f"{part.kind}: {name} must be above 0"

    @property
    def trains(self) -> bool:
        """Whether a network is trained, by a recipe."""
        return self.unlabelled.trains if self.unlabelled else self.layers != "none"

    @property
    def goes_on(self) -> bool:
        """Whether it can be applied to targets in turn.

        It must train on the target and start from random weights or its own last result.  Strategies that
        start from another strategy, are merged with the baseline or use a memory file of the baseline's
        features cannot.
        """
        own = self.start in ("random", "baseline") and not self.merge and not self.memory
        return own and "target" in self.sides

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides whose training images its batches show: ``"source"``, ``"target"`` or both."""
        return tuple(self.data.split("+"))

    @property
    def looks_back(self) -> bool:
        """Whether it needs the baseline beside the network that it starts from."""
        return bool(self.merge) or self.choice == "herding" or self.memory is not None

    @property
    def past_data(self) -> PastData:
        """What it needs of the source's training images (its validation images aside)."""
        if self.memory:
            return "statistics"
        if "source" in self.sides:
            return "some per class" if self.exemplars else "all source"
        return self.penalty.past_data if self.penalty else "none"

    @property
    def needs(self) -> frozenset[str]:
        """The sides whose training images it needs: for its batches, its penalty or its merging."""
        if self.layers == "none" and not (self.merge or self.unlabelled or self.memory):
            return frozenset()
        statistics = self.penalty is not None and self.penalty.past_data != "none"
        return frozenset(self.sides) | ({"source"} if statistics else frozenset())

    def default_recipe(self) -> Recipe:
        """Return its own recipe, or the one that suits where it starts and what it trains."""
        if self.recipe:
            return self.recipe
        if self.start == "random":
            return FROM_SCRATCH
        if isinstance(self.memory, FeatureReplay):
            return REPLAY
        if self.layers not in ("all", "none") and self.data == "target" and not self.penalty:
            return FINE_TUNING_LAST_LAYERS
        return FINE_TUNING

"""The strategies, as points in a small space.

"Where training starts, which layers train, on which data", what holds the network back, and whether it is
merged with what it was: a strategy is a choice on each of these axes, and nothing else.  The five of the
study (section II.B, Fig. 2) are five points; a new strategy is another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from crossfer.memory.closed_form import SLDA, Ridge
from crossfer.memory.exemplars import Choice
from crossfer.memory.merging import Merge
from crossfer.memory.penalties import (
    EWC,
    L2SP,
    DarkExperience,
    Distillation,
    FocalDistillation,
    Penalty,
    SourceDistillation,
)
from crossfer.memory.replay import FeatureReplay
from crossfer.terms import BL, PastData
from crossfer.training.recipe import (
    FINE_TUNING,
    FINE_TUNING_LAST_LAYERS,
    FROM_SCRATCH,
    Recipe,
)
from crossfer.unlabelled import T3A, AdaBN, Shot, Tent, Unlabelled

FromMemory = FeatureReplay | Ridge | SLDA
"""What learns from a memory file and the target."""


@dataclass(frozen=True)
class Strategy:
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
        The default hyper-parameters.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # no unknown key in a configuration
    NOT_IDENTITY: ClassVar = frozenset({"name", "about", "paper", "recipe", "start"})
    """What does not determine a run's weights beside its recipe and the run that it starts from."""

    name: str
    start: str
    layers: Literal["none", "norms", "head", "FC", "FC+CL", "body", "all"]
    data: Literal["source", "target", "source+target"]
    about: str = field(default="", compare=False)
    exemplars: int | None = None
    choice: Choice = "random"
    share: float | None = None
    penalty: Penalty | None = None
    merge: bool | Merge = False
    memory: FromMemory | None = None
    rank: int | None = None
    unlabelled: Unlabelled | None = None
    paper: str = field(default="", compare=False)
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        both = self.data == "source+target"
        if self.exemplars is not None and (self.exemplars < 1 or not both):
            raise ValueError(
                f"{self.name}: exemplars: must be at least 1, with data: source+target"
            )
        if self.share is not None and not (0 < self.share < 1 and both):
            raise ValueError(
                f"{self.name}: share: must be between 0 and 1, with data: source+target"
            )
        if isinstance(self.penalty, SourceDistillation | DarkExperience) and self.share is None:
            raise ValueError(
                f"{self.name}: {self.penalty.kind}: needs a share, to separate source and target "
                "images"
            )
        if self.merge == "Fisher" and not both:
            raise ValueError(
                f"{self.name}: Fisher: needs images of both datasets; set data: source+target"
            )
        if self.memory and (self.data != "target" or self.penalty or self.merge or self.unlabelled):
            raise ValueError(
                f"{self.name}: memory: needs data: target, and cannot be combined with other ways "
                "of learning"
            )
        if self.memory and self.layers not in self.memory.LAYERS:
            raise ValueError(f"{self.name}: {self.memory.kind}: layers: {self.memory.LAYERS[0]}")
        if self.start == "random" and (self.merge or self.penalty or self.layers != "all"):
            raise ValueError(
                f"{self.name}: a strategy that starts at random must train all layers, without "
                "penalty or merge"
            )
        if self.unlabelled:
            if self.data != "target" or self.penalty or self.merge or self.start == "random":
                raise ValueError(
                    f"{self.name}: unlabelled: needs data: target and a trained network to start "
                    "from, without penalty or merge"
                )
            if self.unlabelled.trains == (self.layers == "none"):
                what = "layers to train" if self.unlabelled.trains else "layers: none"
                raise ValueError(f"{self.name}: {self.unlabelled.kind}: needs {what}")
        if self.rank is not None and (self.rank < 1 or self.layers not in ("FC", "FC+CL", "all")):
            raise ValueError(
                f"{self.name}: rank: must be at least 1, with layers: FC, FC+CL or all"
            )
        if self.rank and isinstance(self.penalty, L2SP | EWC):
            raise ValueError(
                f"{self.name}: rank: {self.penalty.kind} penalises changed weights, which adapters "
                "do not have; remove one of the two"
            )
        if self.start == self.name:
            raise ValueError(f"{self.name}: starts from itself")

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides whose training images its batches show: ``"source"``, ``"target"`` or both."""
        return tuple(self.data.split("+"))

    @property
    def labels(self) -> Literal["all", "none"]:
        """Which of the target's training labels it looks at."""
        return "none" if self.unlabelled else "all"

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
        last_layers = (
            self.layers not in ("all", "none") and self.data == "target" and not self.penalty
        )
        return FINE_TUNING_LAST_LAYERS if last_layers else FINE_TUNING


REPLAY = Recipe(epochs=16, batch_size=64, learning_rate=0.02, warmup=0.1, averaging=0.98, views=4)
"""Of the fully connected layers, beside features drawn from a memory."""

PAPER = "Tannugi, Britto Jr., Koerich, Memory Integrity of CNNs, 2019"

BASELINE = Strategy(
    BL,
    start="random",
    layers="all",
    data="source",
    about="the network trained on the source, not adapted",
    paper=PAPER,
)

DEPLOYED = Strategy(
    BL,
    start="deployed",
    layers="none",
    data="source",
    about="the network as it is deployed, not adapted",
)
"""The baseline where the experiment is given a network's weights."""

STUDY = (
    BASELINE,
    Strategy(
        "FC",
        start="baseline",
        layers="FC",
        data="target",
        about="fine-tune the fully connected layers",
        paper=PAPER,
    ),
    Strategy(
        "FC+CL",
        start="baseline",
        layers="FC+CL",
        data="target",
        about="fine-tune the fully connected layers and the last convolution",
        paper=PAPER,
    ),
    Strategy(
        "RE",
        start="baseline",
        layers="all",
        data="target",
        about="fine-tune every layer",
        paper=PAPER,
    ),
    Strategy(
        "FU",
        start="random",
        layers="all",
        data="source+target",
        about="train from random weights on source and target together",
        paper=PAPER,
    ),
)
"""The five strategies of the study, in the order of its Fig. 6."""

HELD = replace(FINE_TUNING, epochs=15)
"""Half as long: something holds the network back, or its last layer suits the target already."""

GENTLE = Recipe(epochs=6, batch_size=64, learning_rate=0.01, warmup=0.1)
"""A few passes over the target, each with several source images beside it."""

BEYOND = (
    Strategy(
        "HEAD",
        start="baseline",
        layers="head",
        data="target",
        about="fine-tune the last layer alone",
        paper="linear probing, e.g. Kumar et al., ICLR 2022",
        recipe=Recipe(epochs=15, batch_size=32, learning_rate=0.02, views=4),
    ),
    Strategy(
        "LP-FT",
        start="HEAD",
        layers="all",
        data="target",
        about="fine-tune the last layer first, then every layer",
        paper="Kumar et al., Fine-Tuning can Distort Pretrained Features, ICLR 2022",
        recipe=HELD,
    ),
    Strategy(
        "L2-SP",
        start="baseline",
        layers="all",
        data="target",
        about="fine-tune every layer, with a penalty on the distance from the old weights",
        penalty=L2SP(),
        paper="Li, Grandvalet, Davoine, ICML 2018",
        recipe=HELD,
    ),
    Strategy(
        "LwF",
        start="baseline",
        layers="all",
        data="target",
        about="fine-tune every layer, distilling the old network on the new images",
        penalty=Distillation(),
        paper="Li and Hoiem, Learning without Forgetting, TPAMI 2018",
        recipe=HELD,
    ),
    Strategy(
        "EWC",
        start="baseline",
        layers="all",
        data="target",
        about=(
            "fine-tune every layer, with a penalty on changing weights that matter for the source"
        ),
        penalty=EWC(),
        paper="Kirkpatrick et al., PNAS 2017",
        recipe=HELD,
    ),
    Strategy(
        "WiSE-FT",
        start="RE",
        layers="none",
        data="target",
        about="interpolate the weights before and after fine-tuning every layer",
        merge=True,
        paper="Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022",
    ),
    Strategy(
        "ER-50",
        start="baseline",
        layers="all",
        data="source+target",
        about="fine-tune every layer with 50 old images of each class beside the new ones",
        exemplars=50,
        share=0.5,
        paper="Chaudhry et al., On Tiny Episodic Memories in Continual Learning, 2019",
        recipe=GENTLE,
    ),
    Strategy(
        "ER-50-herding",
        start="baseline",
        layers="all",
        data="source+target",
        about="fine-tune every layer, with 50 old images of each class chosen by herding",
        exemplars=50,
        choice="herding",
        share=0.5,
        paper="exemplars chosen as in Rebuffi et al., iCaRL, CVPR 2017, which also distils and classifies by "
        "nearest means",
        recipe=GENTLE,
    ),
    Strategy(
        "ER-50+WiSE",
        start="ER-50",
        layers="none",
        data="source+target",
        about=(
            "interpolate the weights before and after fine-tuning with 50 old images of each class"
        ),
        exemplars=50,
        merge=True,
    ),
    Strategy(
        "RIDGE",
        start="baseline",
        layers="none",
        data="target",
        about=(
            "compute the last layer by ridge regression on the features of old images (memory "
            "file) and new ones"
        ),
        memory=Ridge(),
        paper="ridge regression from second moments; cf. McDonnell et al., RanPAC, NeurIPS 2023",
    ),
    Strategy(
        "RIDGE+RP",
        start="baseline",
        layers="none",
        data="target",
        about="the same on random ReLU projections of the features",
        memory=Ridge(projected=True),
        paper="McDonnell et al., RanPAC, NeurIPS 2023, phase 2",
    ),
    Strategy(
        "SLDA",
        start="baseline",
        layers="none",
        data="target",
        about=(
            "compute the last layer by linear discriminant analysis from the memory file, updated "
            "image by image"
        ),
        memory=SLDA(),
        paper="Hayes and Kanan, Lifelong Machine Learning with Deep Streaming LDA, CVPR Workshops 2020",
    ),
    Strategy(
        "GFR",
        start="baseline",
        layers="FC",
        data="target",
        about=(
            "fine-tune the fully connected layers with features sampled from the memory file, "
            "distilling the old network on them"
        ),
        memory=FeatureReplay(),
        paper="Liu et al., Generative Feature Replay, CVPR Workshops 2020, with Gaussians",
    ),
    Strategy(
        "GFR+WiSE",
        start="GFR",
        layers="none",
        data="target",
        about="interpolate the weights before and after GFR",
        merge=True,
    ),
    Strategy(
        "LiNeS",
        start="RE",
        layers="none",
        data="target",
        about=(
            "interpolate the weights before and after fine-tuning every layer, first layers least"
        ),
        merge="LiNeS",
        paper="Wang et al., LiNeS: Post-training Layer Scaling, ICLR 2025",
    ),
    Strategy(
        "RE+FISHER",
        start="RE",
        layers="none",
        data="source+target",
        about=(
            "merge the weights before and after fine-tuning every layer by their Fisher information"
        ),
        merge="Fisher",
        paper="Matena and Raffel, Merging Models with Fisher-Weighted Averaging, NeurIPS 2022",
    ),
    Strategy(
        "DER++",
        start="baseline",
        layers="all",
        data="source+target",
        about=(
            "fine-tune every layer with 50 old images of each class beside the new ones, matching "
            "their stored logits"
        ),
        exemplars=50,
        share=0.5,
        penalty=DarkExperience(),
        paper="Buzzega et al., Dark Experience for General Continual Learning, NeurIPS 2020",
        recipe=GENTLE,
    ),
    Strategy(
        "SER",
        start="baseline",
        layers="all",
        data="source+target",
        about="as DER++, also matching the old network's logits on the new images",
        exemplars=50,
        share=0.5,
        penalty=DarkExperience(weight=0.2, forward=0.2),
        paper="Zhuo et al., Continual Learning with Strong Experience Replay, 2023",
        recipe=GENTLE,
    ),
    Strategy(
        "LoRA-8",
        start="baseline",
        layers="all",
        data="target",
        about="fine-tune the last layer, and adapters of rank 8 beside the large linear layers",
        rank=8,
        paper="Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022",
        recipe=HELD,
    ),
    Strategy(
        "WF",
        start="baseline",
        layers="all",
        data="source+target",
        about=(
            "continue from the old weights on source and target together, for a tenth of the time"
        ),
        paper="warm start; Ash and Adams, On Warm-Starting Neural Network Training, NeurIPS 2020",
        recipe=Recipe(epochs=3, learning_rate=0.01, warmup=0.1),
    ),
    Strategy(
        "MIX",
        start="baseline",
        layers="all",
        data="source+target",
        about="continue from the old weights with three source images per target image",
        share=0.25,
        recipe=GENTLE,
    ),
    Strategy(
        "MIX+KD",
        start="baseline",
        layers="all",
        data="source+target",
        about=(
            "continue from the old weights with three source images per target image, distilling "
            "the old network on them"
        ),
        share=0.25,
        penalty=SourceDistillation(),
        paper="replay with distillation; cf. Buzzega et al., Dark Experience for General Continual "
        "Learning, NeurIPS 2020, which stores logits instead",
        recipe=replace(GENTLE, epochs=8, learning_rate=0.005, averaging=0.98),
    ),
    Strategy(
        "MIX+FD",
        start="baseline",
        layers="all",
        data="source+target",
        about=(
            "continue from the old weights with three source images per target image, distilling "
            "the old network where it is right"
        ),
        share=0.25,
        penalty=FocalDistillation(),
        paper="focal distillation: Yan et al., Positive-Congruent Training, CVPR 2021",
        recipe=replace(GENTLE, epochs=8, learning_rate=0.005, averaging=0.98),
    ),
    Strategy(
        "MIX+LA",
        start="baseline",
        layers="all",
        data="source+target",
        about="as MIX, with logit adjustment, so that every class counts the same",
        share=0.25,
        paper="logit adjustment: Menon et al., Long-Tail Learning via Logit Adjustment, ICLR 2021",
        recipe=replace(GENTLE, logit_adjustment=1.0),
    ),
    Strategy(
        "MIX+WiSE",
        start="MIX",
        layers="none",
        data="source+target",
        about="interpolate the weights before and after MIX",
        merge=True,
    ),
)
"""More points of the same space."""

UNLABELLED = (
    Strategy(
        "AdaBN",
        start="baseline",
        layers="none",
        data="target",
        about="estimate batch-normalisation statistics on the target's images; no labels",
        unlabelled=AdaBN(),
        paper="Li et al., Adaptive Batch Normalization for Practical Domain Adaptation, Pattern Recognition "
        "2018",
    ),
    Strategy(
        "TENT",
        start="baseline",
        layers="norms",
        data="target",
        about=(
            "train the normalisation layers to minimise entropy on the target's images; no labels"
        ),
        unlabelled=Tent(),
        paper="Wang et al., Tent: Fully Test-Time Adaptation by Entropy Minimization, ICLR 2021",
        recipe=Recipe(epochs=5, batch_size=64, learning_rate=0.001, warmup=0.1),
    ),
    Strategy(
        "SHOT",
        start="baseline",
        layers="body",
        data="target",
        about=(
            "train all but the last layer by information maximisation and pseudo-labels; no labels"
        ),
        unlabelled=Shot(),
        paper="Liang, Hu, Feng, Source Hypothesis Transfer (SHOT), ICML 2020",
        recipe=Recipe(epochs=15, batch_size=64, learning_rate=0.005, warmup=0.1),
    ),
    Strategy(
        "T3A",
        start="baseline",
        layers="none",
        data="target",
        about="replace the last layer by templates of the target's features; no labels",
        unlabelled=T3A(),
        paper="Iwasawa and Matsuo, Test-Time Classifier Adjustment Module (T3A), NeurIPS 2021",
    ),
)
"""Those that need no label of the target."""

STRATEGIES: Mapping[str, Strategy] = {
    strategy.name: strategy for strategy in (*STUDY, *BEYOND, *UNLABELLED)
}
"""Every strategy that is known by name."""

RENAMED: Mapping[str, str] = {"iCaRL-50": "ER-50-herding"}
"""Old names, which promised papers' methods that these strategies are not, and the names they have now."""


def strategy_called(name: str) -> Strategy:
    """Return a known strategy.

    Raises
    ------
    ValueError
        If there is none of this name; an old name is told with the new one.
    """
    if name in RENAMED:
        raise ValueError(
            f"{name} is now called {RENAMED[name]}, because it is not the method of the paper of "
            "that name"
        )
    if name not in STRATEGIES:
        raise ValueError(f"unknown strategy {name!r}; choose among {', '.join(STRATEGIES)}")
    return STRATEGIES[name]


DEFAULT: tuple[Strategy, ...] = (*STUDY, STRATEGIES["MIX+KD"])
"""Compared unless told otherwise: the study's five, and what comes near FU at a thirtieth of its cost."""


def starts(strategy: Strategy, known: Mapping[str, Strategy] = STRATEGIES) -> list[str]:
    """Name the strategies that one starts from, the nearest first: those whose runs it needs.

    Raises
    ------
    ValueError
        If one of them is unknown, or they go round in a circle.
    """
    names: list[str] = []
    while strategy.start not in ("random", "baseline"):
        if strategy.start not in known:
            raise ValueError(
                f"{strategy.name}: starts from {strategy.start!r}, which does not exist"
            )
        if strategy.start in names:
            raise ValueError(
                f"{strategy.name}: start: refers back to itself through other strategies"
            )
        strategy = known[strategy.start]
        names.append(strategy.name)
    return names

"""The known strategies, each with its paper: five are the study's (section II.B, Fig. 2).

A new one is one entry here, or in an experiment's configuration: see `crossfer.strategy.Strategy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from crossfer.memory.closed_form import SLDA, Ridge
from crossfer.memory.penalties import (
    EWC,
    L2SP,
    DarkExperience,
    Distillation,
    FocalDistillation,
    SourceDistillation,
)
from crossfer.memory.replay import FeatureReplay
from crossfer.memory.routing import Router
from crossfer.networks.experts import NOT_ADAPTED
from crossfer.strategy import Strategy
from crossfer.terms import BL
from crossfer.training.recipe import FINE_TUNING, Recipe
from crossfer.unlabelled import T3A, AdaBN, Shot, Tent

on_target = partial(Strategy, start="baseline", data="target")
"""Start from the baseline and show the target alone."""

with_source = partial(Strategy, start="baseline", layers="all", data="source+target")
"""Start from the baseline, train every layer and show images of both datasets."""

merged = partial(Strategy, layers="none", data="target", merge=True)
"""Merge the weights of the baseline with those of the strategy that it starts from."""

routed = partial(Strategy, layers="none", data="target", memory=Router())
"""Keep the baseline beside the strategy that it starts from; a router weighs their answers for each face."""

EXPERTS = (
    "mixture of experts: Jacobs et al., Neural Computation 1991; cf. Aljundi et al., Expert Gate, CVPR 2017, "
    "whose gate is made of autoencoders"
)

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
    on_target("FC", layers="FC", about="fine-tune the fully connected layers", paper=PAPER),
    on_target(
        "FC+CL",
        layers="FC+CL",
        about="fine-tune the fully connected layers and the last convolution",
        paper=PAPER,
    ),
    on_target("RE", layers="all", about="fine-tune every layer", paper=PAPER),
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
    on_target(
        "HEAD",
        layers="head",
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
    on_target(
        "L2-SP",
        layers="all",
        about="fine-tune every layer, with a penalty on the distance from the old weights",
        penalty=L2SP(),
        paper="Li, Grandvalet, Davoine, ICML 2018",
        recipe=HELD,
    ),
    on_target(
        "LwF",
        layers="all",
        about="fine-tune every layer, distilling the old network on the new images",
        penalty=Distillation(),
        paper="Li and Hoiem, Learning without Forgetting, TPAMI 2018",
        recipe=HELD,
    ),
    on_target(
        "EWC",
        layers="all",
        about="fine-tune every layer, with a penalty on changing weights that matter for the source",
        penalty=EWC(),
        paper="Kirkpatrick et al., PNAS 2017",
        recipe=HELD,
    ),
    merged(
        "WiSE-FT",
        start="RE",
        about="interpolate the weights before and after fine-tuning every layer",
        paper="Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022",
    ),
    with_source(
        "ER-50",
        about="fine-tune every layer with 50 old images of each class beside the new ones",
        exemplars=50,
        share=0.5,
        paper="Chaudhry et al., On Tiny Episodic Memories in Continual Learning, 2019",
        recipe=GENTLE,
    ),
    with_source(
        "ER-50-herding",
        about="fine-tune every layer, with 50 old images of each class chosen by herding",
        exemplars=50,
        choice="herding",
        share=0.5,
        paper="exemplars chosen as in Rebuffi et al., iCaRL, CVPR 2017, which also distils and classifies by "
        "nearest means",
        recipe=GENTLE,
    ),
    merged(
        "ER-50+WiSE",
        start="ER-50",
        data="source+target",
        about="interpolate the weights before and after fine-tuning with 50 old images of each class",
        exemplars=50,
    ),
    on_target(
        "RIDGE",
        layers="none",
        about=(
            "compute the last layer by ridge regression on the features of old images (memory "
            "file) and new ones"
        ),
        memory=Ridge(),
        paper="ridge regression from second moments; cf. McDonnell et al., RanPAC, NeurIPS 2023",
    ),
    on_target(
        "RIDGE+RP",
        layers="none",
        about=(
            "compute the last layer by ridge regression on random ReLU projections of the features "
            "of old images (memory file) and new ones"
        ),
        memory=Ridge(projected=True),
        paper="McDonnell et al., RanPAC, NeurIPS 2023, phase 2",
    ),
    on_target(
        "SLDA",
        layers="none",
        about=(
            "compute the last layer by linear discriminant analysis from the memory file, updated "
            "image by image"
        ),
        memory=SLDA(),
        paper="Hayes and Kanan, Lifelong Machine Learning with Deep Streaming LDA, CVPR Workshops 2020",
    ),
    on_target(
        "GFR",
        layers="FC",
        about=(
            "fine-tune the fully connected layers with features sampled from the memory file, "
            "distilling the old network on them"
        ),
        memory=FeatureReplay(),
        paper="Liu et al., Generative Feature Replay, CVPR Workshops 2020, with Gaussians",
    ),
    merged(
        "GFR+WiSE",
        start="GFR",
        about="interpolate the weights before and after GFR",
    ),
    on_target(
        "GFR+LDC",
        start="LwF",
        layers="FC",
        about=(
            "as GFR, after LwF has changed every layer: sampled features are moved as the target's have"
        ),
        memory=FeatureReplay(),
        paper="learnable drift compensation: Gomez-Villa et al., ECCV 2024",
    ),
    routed(
        "GFR+MOE",
        start="GFR",
        about=(
            "mix the old network's answers with those of GFR, weighed by a router that tells old "
            "faces (memory file) from new ones"
        ),
        paper=EXPERTS,
    ),
    routed(
        "RE+MOE",
        start="RE",
        about=(
            "mix the old network's answers with those of RE, weighed by a router that tells old "
            "faces (memory file) from new ones"
        ),
        paper=EXPERTS,
    ),
    merged(
        "LiNeS",
        start="RE",
        about="interpolate the weights before and after fine-tuning every layer, first layers least",
        merge="LiNeS",
        paper="Wang et al., LiNeS: Post-training Layer Scaling, ICLR 2025",
    ),
    merged(
        "RE+FISHER",
        start="RE",
        data="source+target",
        about="merge the weights before and after fine-tuning every layer by their Fisher information",
        merge="Fisher",
        paper="Matena and Raffel, Merging Models with Fisher-Weighted Averaging, NeurIPS 2022",
    ),
    with_source(
        "DER++",
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
    with_source(
        "SER",
        about="as DER++, also matching the old network's logits on the new images",
        exemplars=50,
        share=0.5,
        penalty=DarkExperience(weight=0.2, forward=0.2),
        paper="Zhuo et al., Continual Learning with Strong Experience Replay, 2023",
        recipe=GENTLE,
    ),
    on_target(
        "LoRA-8",
        layers="all",
        about="fine-tune the last layer, and adapters of rank 8 beside the large linear layers",
        rank=8,
        paper="Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022",
        recipe=HELD,
    ),
    with_source(
        "WF",
        about="continue from the old weights on source and target together, for three epochs",
        paper="warm start; Ash and Adams, On Warm-Starting Neural Network Training, NeurIPS 2020",
        recipe=Recipe(epochs=3, learning_rate=0.01, warmup=0.1),
    ),
    with_source(
        "MIX",
        about="continue from the old weights with three source images per target image",
        share=0.25,
        recipe=GENTLE,
    ),
    with_source(
        "MIX+KD",
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
    with_source(
        "MIX+FD",
        about=(
            "continue from the old weights with three source images per target image, distilling "
            "the old network where it is right"
        ),
        share=0.25,
        penalty=FocalDistillation(),
        paper="focal distillation: Yan et al., Positive-Congruent Training, CVPR 2021",
        recipe=replace(GENTLE, epochs=8, learning_rate=0.005, averaging=0.98),
    ),
    with_source(
        "MIX+LA",
        about="as MIX, with logit adjustment, so that every class counts the same",
        share=0.25,
        paper="logit adjustment: Menon et al., Long-Tail Learning via Logit Adjustment, ICLR 2021",
        recipe=replace(GENTLE, logit_adjustment=1.0),
    ),
    merged(
        "MIX+WiSE",
        start="MIX",
        data="source+target",
        about="interpolate the weights before and after MIX",
    ),
)
"""More points of the same space."""

UNLABELLED = (
    on_target(
        "AdaBN",
        layers="none",
        about="estimate batch-normalisation statistics on the target's images; no labels",
        unlabelled=AdaBN(),
        paper="Li et al., Adaptive Batch Normalization for Practical Domain Adaptation, Pattern Recognition "
        "2018",
    ),
    on_target(
        "TENT",
        layers="norms",
        about="train the normalisation layers to minimise entropy on the target's images; no labels",
        unlabelled=Tent(),
        paper="Wang et al., Tent: Fully Test-Time Adaptation by Entropy Minimization, ICLR 2021",
        recipe=Recipe(epochs=5, batch_size=64, learning_rate=0.001, warmup=0.1),
    ),
    on_target(
        "SHOT",
        layers="body",
        about="train all but the last layer by information maximisation and pseudo-labels; no labels",
        unlabelled=Shot(),
        paper="Liang, Hu, Feng, Source Hypothesis Transfer (SHOT), ICML 2020",
        recipe=Recipe(epochs=15, batch_size=64, learning_rate=0.005, warmup=0.1),
    ),
    on_target(
        "T3A",
        layers="none",
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
"""Compared unless told otherwise: the study's five, and what comes near FU at a fraction of its cost."""


def starts(strategy: Strategy, known: Mapping[str, Strategy] = STRATEGIES) -> list[str]:
    """Name the strategies that one starts from, the nearest first: those whose runs it needs.

    Raises
    ------
    ValueError
        If one of them is unknown or a mixture of experts, or they go round in a circle.
    """
    names: list[str] = []
    while strategy.start not in ("random", "baseline"):
        if strategy.start not in known:
            raise ValueError(
                f"{strategy.name}: starts from {strategy.start!r}, which does not exist"
            )
        if isinstance(known[strategy.start].memory, Router):
            raise ValueError(f"{strategy.name}: starts from {strategy.start}: {NOT_ADAPTED}")
        if strategy.start in names:
            raise ValueError(
                f"{strategy.name}: start: refers back to itself through other strategies"
            )
        strategy = known[strategy.start]
        names.append(strategy.name)
    return names

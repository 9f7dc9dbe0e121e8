"""The strategies, as points in a small space.

"Where training starts, which layers train, on which data": a strategy is a choice on each of these axes,
and nothing else.  The five of the study (section II.B, Fig. 2) are five points; a new strategy is another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from crossfer.models import fully_connected, last_convolution, layers_with_parameters


@dataclass(frozen=True)
class Strategy:
    """How a network meets new faces.

    Parameters
    ----------
    name
        Short name, as it stands in tables and configurations.
    start
        ``"baseline"``: from the weights of BL; ``"random"``: from scratch.
    layers
        Which layers train: a key of `LAYERS`.
    data
        Which training sets are shown: the source's, the target's, or both.
    about
        One sentence for people.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # no unknown key in a configuration

    name: str
    start: Literal["baseline", "random"]
    layers: Literal["FC", "FC+CL", "all"]
    data: Literal["source", "target", "source+target"]
    about: str = ""


LAYERS: Mapping[str, Callable[[nn.Module], list[str]]] = {
    "FC": fully_connected,
    "FC+CL": lambda model: last_convolution(model) + fully_connected(model),
    "all": layers_with_parameters,
}
"""The layers that a strategy may train, found in any network by module order."""

BASELINE = Strategy(
    "BL", "random", "all", "source", "the network trained on the source, not adapted"
)

STUDY = (
    BASELINE,
    Strategy("FC", "baseline", "FC", "target", "fine-tune the fully connected layers"),
    Strategy(
        "FC+CL",
        "baseline",
        "FC+CL",
        "target",
        "fine-tune the fully connected layers and the last convolution",
    ),
    Strategy("RE", "baseline", "all", "target", "fine-tune every layer"),
    Strategy("FU", "random", "all", "source+target", "train anew on source and target together"),
)
"""The five strategies of the study, in the order of its Fig. 6."""

STRATEGIES: Mapping[str, Strategy] = {strategy.name: strategy for strategy in STUDY}
"""Every strategy that is known by name."""

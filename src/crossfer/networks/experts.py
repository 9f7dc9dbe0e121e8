"""A mixture of experts: two networks, and a router that weighs their answers for each face."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossfer.networks.answers import find_logits

NOT_ADAPTED = (
    "a mixture of experts is not adapted any further; adapt the network that it was made from, with the "
    "memory file of that one"
)


class Experts(nn.Module):
    """Two networks with the same outputs, mixed for each face.

    ``p(y | x) = (1 − g(x)) p_old(y | x) + g(x) p_new(y | x)``: Jacobs et al., Adaptive Mixtures of Local
    Experts, Neural Computation 1991.  The router's weight is ``g(x) = σ(w · f(x) + b)``, with the features f
    that the head of the old network is given; w and b are one more row of this head.  Probabilities are those
    of all outputs, also of such as stand for no class.

    Parameters
    ----------
    old, new
        The experts, which map float (N, C, H, W) to logits: (N, answers + 1), with the router's row last, and
        (N, answers).
    answers
        Number of outputs.
    """

    def __init__(self, old: nn.Module, new: nn.Module, answers: int) -> None:
        super().__init__()
        self.answers = answers
        self.old, self.new = old, new

    def forward(self, images: Tensor) -> Tensor:
        """Return logarithms of probabilities, float (N, answers), of normalised images."""
        # A router tells faces apart by small differences of features, which bfloat16 would round away.
        with torch.autocast(images.device.type, enabled=False):
            both, _ = find_logits(self.old(images), self.answers + 1)
        new, _ = find_logits(self.new(images), self.answers)
        old, score = both[:, :-1], both[:, -1:]
        parts = (
            F.logsigmoid(-score) + F.log_softmax(old, 1),
            F.logsigmoid(score) + F.log_softmax(new, 1),
        )
        return torch.stack(parts).logsumexp(0)

"""The network of the study."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from crossfer.framing import SIDE


def study_cnn(width: float = 1.0, classes: int = 7) -> nn.Sequential:
    """Build the network of the study (section II.A, Fig. 1) with random weights.

    Five unpadded convolutions (64 filters of 2×2 twice, 128 of 3×3 three times), each with batch
    normalisation and ReLU, 2×2 max-pooling after the second and the fifth, and three fully connected
    layers (2048, 1024, 7) with dropout 0.5 after the first two.  Unpadded convolutions are the only
    reading that gives the paper's 19.2 M parameters: 8,192 features, 19,271,431 trainable.

    Parameters
    ----------
    width
        Multiplies every number of filters and units; 1.0 is the study.  Narrower networks serve
        demonstrations and tests.
    classes
        How many outputs; the study has seven.

    Returns
    -------
    torch.nn.Sequential
        Takes float (N, 1, 48, 48); returns logits, float (N, classes).

    Raises
    ------
    ValueError
        If the width is not above 0.
    """
    if not width > 0:
        raise ValueError(f"width is {width}: must be above 0")

    def scaled(units: int) -> int:
        return max(1, round(units * width))

    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, side = 1, SIDE
    for index, (filters, kernel) in enumerate([(64, 2), (64, 2), (128, 3), (128, 3), (128, 3)], 1):
        layers[f"conv{index}"] = nn.Conv2d(channels, scaled(filters), kernel)
        layers[f"norm{index}"] = nn.BatchNorm2d(scaled(filters))
        layers[f"relu{index}"] = nn.ReLU(inplace=True)
        channels, side = scaled(filters), side - kernel + 1
        if index in (2, 5):
            layers[f"pool{index}"] = nn.MaxPool2d(2)
            side //= 2
    layers["flatten"] = nn.Flatten()
    features = channels * side * side
    for index, units in enumerate([2048, 1024], 1):
        layers[f"fc{index}"] = nn.Linear(features, scaled(units))
        layers[f"fc{index}_relu"] = nn.ReLU(inplace=True)
        layers[f"fc{index}_dropout"] = nn.Dropout(0.5)
        features = scaled(units)
    layers["fc3"] = nn.Linear(features, classes)
    return nn.Sequential(layers)

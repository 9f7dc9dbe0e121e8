"""Networks as other people build them, tiny: for the tests of `crossfer.networks`."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A residual block (He et al., 2016) with squeeze-and-excitation, whose layers are linear."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.squeeze = nn.Linear(width, 2)
        self.excite = nn.Linear(2, width)
        same = before == width and stride == 1
        self.short = nn.Identity() if same else nn.Conv2d(before, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        gate = self.excite(self.squeeze(y.mean((2, 3))).relu()).sigmoid()
        return torch.relu(self.short(x) + y * gate[:, :, None, None])


class Residual(nn.Module):
    """A ResNet with one linear head; it flattens with ``view``, as many do."""

    def __init__(self, channels: int = 3, outputs: int = 7, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.stages = nn.Sequential(
            Block(width, width, 2), Block(width, 2 * width, 2), Block(2 * width, 2 * width, 1)
        )
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(8 * width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        found = self.pool(self.stages(self.stem(images)))
        return self.head(self.dropout(found.view(len(found), -1)))


class Vision(nn.Module):
    """A vision transformer (Dosovitskiy et al., 2021), with a class token and PyTorch's own blocks."""

    def __init__(self, channels: int = 1, side: int = 32, depth: int = 3, width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, (side // 8) ** 2 + 1, width) * 0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 7)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


class Next(nn.Module):
    """A ConvNeXt (Liu et al., 2022): every block has linear layers behind its convolution."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 4, 4)
        self.blocks = nn.Sequential(*(self._block(width) for _ in range(2)))
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Sequential(nn.Linear(width, 12), nn.BatchNorm1d(12), nn.Linear(12, 7))

    @staticmethod
    def _block(width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width),
            nn.GroupNorm(1, width),
            nn.Flatten(2),
            nn.Linear(64, 64),
            nn.Unflatten(2, (8, 8)),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.norm(self.blocks(self.stem(images)).mean((2, 3))))


def fully_convolutional() -> nn.Module:
    """Build a network without a linear layer: its last convolution gives the logits."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(),
        nn.Conv2d(8, 7, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


class Scale(nn.Module):
    """Multiplies logits, as CLIP does."""

    def forward(self, logits: Tensor) -> Tensor:
        return 5 * logits


def scaled() -> nn.Module:
    """Build a network whose last linear layer does not give its outputs: something follows."""
    return nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 7), Scale())


class CosineLinear(nn.Linear):
    """A head that is not linear in its weight."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ten times the cosines of (N, inputs) and the rows of the weight, and the bias."""
        x, weight = (nn.functional.normalize(each) for each in (x, self.weight))
        return nn.functional.linear(10 * x, weight, self.bias)


def cosine(channels: int = 3) -> nn.Module:
    """Build a network that answers with cosines."""
    model = Residual(channels)
    model.head = CosineLinear(64, 7)
    return model


def weight_normalised(channels: int = 3) -> nn.Module:
    """Build a network whose head has a normalised weight."""
    model = Residual(channels)
    nn.utils.parametrizations.weight_norm(model.head)
    return model


class ReadHead(Residual):
    """Reads the weight of its head, which it does not call."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        found = self.pool(self.stages(self.stem(images))).flatten(1)
        return nn.functional.linear(found, self.head.weight, self.head.bias)


def read_head(channels: int = 3) -> nn.Module:
    """Build one."""
    return ReadHead(channels)


def softmaxed() -> nn.Module:
    """Build a network that answers with probabilities."""
    return nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 7), nn.Softmax(1))


def no_network() -> str:
    """Return something else."""
    return "a network"


class WithFeatures(Residual):
    """Answers with its features and its logits, as networks for recognition do."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # pyrefly: ignore[bad-override]
        """Return features (N, D) and logits (N, outputs)."""
        found = self.pool(self.stages(self.stem(images))).flatten(1)
        return found, self.head(self.dropout(found))


def with_features() -> nn.Module:
    """Build a network that answers with a tuple."""
    return WithFeatures()


def patched() -> nn.Module:
    """Build a network whose forward was replaced by a function of it, to give one of two outputs."""
    model = WithFeatures()
    forward = model.forward
    model.forward = lambda images: forward(images)[1]  # pyrefly: ignore[method-assign, bad-assignment]
    return model


class BodyWithoutGradient(Residual):
    """Calculates its features without gradient, as somebody did who trained only the head."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        with torch.no_grad():
            found = self.pool(self.stages(self.stem(images))).flatten(1)
        return self.head(found)


def body_without_gradient() -> nn.Module:
    """Build a network of which the head alone can train."""
    return BodyWithoutGradient()


class BlindHead(Residual):
    """Has a head of which only a gain trains."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        found = self.pool(self.stages(self.stem(images))).flatten(1)
        weight, bias = self.head.weight.detach(), self.head.bias
        return self.gain * nn.functional.linear(found, weight, bias)


def blind_head() -> nn.Module:
    """Build a network whose head has a weight that never trains."""
    return BlindHead()


class WithAnIdleHead(Residual):
    """Has a second head, behind the first, that no answer comes from."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Linear(64, 7)


def with_an_idle_head() -> nn.Module:
    """Build a network with a head that is not used."""
    return WithAnIdleHead()


def wrapped() -> nn.Module:
    """Build a network inside another."""

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = Residual()

        def forward(self, images: Tensor) -> Tensor:
            return self.backbone(images)

    return Wrapped()


class Averaging(Residual):
    """Answers the same about all faces that are shown together."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, outputs), each row the mean of all."""
        return super().forward(images).mean(0, keepdim=True).expand(len(images), -1)


def averaging() -> nn.Module:
    """Build one."""
    return Averaging()

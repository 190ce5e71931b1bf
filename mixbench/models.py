"""Backbones for small images."""

from torch import Tensor, nn
from torch.nn import functional as F

from mixbench.contract import Output


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al., arXiv:1512.03385, fig. 2)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's activations, (B, width, h, w)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResidualNet(nn.Module):
    """A residual net in three stages of widths 16, 32 and 64 (He et al., arXiv:1512.03385, §4.2).

    Parameters
    ----------
    depth
        Layers with weights: 6n + 2.
    strides
        Of the three stages.
    """

    blocks = ("layer1", "layer2", "layer3")

    def __init__(
        self, depth: int, channels: int, classes: int, strides: tuple[int, int, int] = (1, 2, 2)
    ) -> None:
        super().__init__()
        per_stage = (depth - 2) // 6
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.layer1 = self._stage(16, 16, strides[0], per_stage)
        self.layer2 = self._stage(16, 32, strides[1], per_stage)
        self.layer3 = self._stage(32, 64, strides[2], per_stage)
        self.feature_dim = 64
        self.classifier = nn.Linear(self.feature_dim, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(width_in: int, width: int, stride: int, num_blocks: int) -> nn.Sequential:
        first = BasicBlock(width_in, width, stride)
        return nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(num_blocks - 1)))

    def forward(self, x: Tensor) -> Output:
        """Return the logits, (B, classes), and the last feature map."""
        features = self.layer3(self.layer2(self.layer1(self.stem(x))))
        return Output(self.classifier(features.mean((2, 3))), features)

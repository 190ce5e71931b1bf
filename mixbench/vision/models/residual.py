"""Residual networks for small images: the original and the pre-activation variant."""

from torch import Tensor, nn
from torch.nn import functional as F

from mixbench.contract import Backbone, Output
from mixbench.vision.models.tensors import State, adopt


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut connection (He et al., arXiv:1512.03385, fig. 2)."""

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


class PreActBlock(nn.Module):
    """Pre-activation block: normalisation and ReLU before every convolution.

    See He et al., arXiv:1603.05027, fig. 1b.

    Parameters
    ----------
    width_in
        Number of input channels.
    width
        Number of output channels.
    stride
        Stride of the block's 3x3 convolution, or of its first one if there are two.
    kernels
        Kernel sizes of the convolutions: (3, 3), or (1, 3, 1) for a bottleneck with `width` / 4
        inner channels.
    """

    def __init__(self, width_in: int, width: int, stride: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        inside = width // 4 if len(kernels) == 3 else width  # a bottleneck
        widths = [width_in, *[inside] * (len(kernels) - 1), width]
        strides = [stride if i == len(kernels) - 2 else 1 for i in range(len(kernels))]
        self.norms = nn.ModuleList(nn.BatchNorm2d(w) for w in widths[:-1])
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, k, s, padding=k // 2, bias=False)
            for a, b, k, s in zip(widths[:-1], widths[1:], kernels, strides, strict=True)
        )
        self.shortcut: nn.Module | None = None
        if stride != 1 or width_in != width:
            self.shortcut = nn.Conv2d(width_in, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of residual and shortcut, (B, width, h, w), without an activation."""
        active = y = F.relu(self.norms[0](x))
        for norm, conv in zip([None, *self.norms[1:]], self.convs, strict=True):
            y = conv(F.relu(norm(y)) if norm else y)
        return y + (self.shortcut(active) if self.shortcut else x)


class ResidualNet(Backbone):
    """Residual network with three stages of 16, 32 and 64 channels.

    See He et al., arXiv:1512.03385, §4.2.

    Parameters
    ----------
    depth
        Number of layers with weights, 6n + 2 for n blocks per stage.
    channels
        Number of channels of the images.
    classes
        Number of outputs of the classifier.
    strides
        Strides of the three stages.
    """

    classifier: nn.Linear

    embedding = "stem"
    blocks: tuple[str, ...] = ("layer1", "layer2", "layer3")

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
        initialise(self)

    def adopt(self, state: State) -> None:
        """Load all weights except the classifier's."""
        adopt(self, state, but=("classifier.weight", "classifier.bias"))

    @staticmethod
    def _stage(width_in: int, width: int, stride: int, num_blocks: int) -> nn.Sequential:
        first = BasicBlock(width_in, width, stride)
        return nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(num_blocks - 1)))

    def forward(self, x: Tensor) -> Output:
        """Return the logits, (B, classes), and the last feature map."""
        features = self.maps(x)[-1]
        return Output(self.classifier(features.mean((2, 3))), features)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps of all stages."""
        first = self.layer1(self.stem(x))
        second = self.layer2(first)
        return [first, second, self.layer3(second)]


class PreActNet(Backbone):
    """Pre-activation residual network with three stages (He et al., arXiv:1603.05027).

    Parameters
    ----------
    depth
        Number of layers with weights: 9n + 2 with bottlenecks, 6n + 2 without.
    channels
        Number of channels of the images.
    classes
        Number of outputs of the classifier.
    bottleneck
        Whether blocks are bottlenecks, whose inner width is a quarter of their output width.
    """

    classifier: nn.Linear

    embedding = "stem"
    blocks: tuple[str, ...] = ("layer1", "layer2", "layer3")

    def __init__(self, depth: int, channels: int, classes: int, *, bottleneck: bool) -> None:
        super().__init__()
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        widths = [16, *((64, 128, 256) if bottleneck else (16, 32, 64))]
        per_stage = (depth - 2) // (3 * len(kernels))
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        stages = []
        for width_in, width, stride in zip(widths[:-1], widths[1:], (1, 2, 2), strict=True):
            first = PreActBlock(width_in, width, stride, kernels)
            rest = (PreActBlock(width, width, 1, kernels) for _ in range(per_stage - 1))
            stages.append(nn.Sequential(first, *rest))
        self.layer1, self.layer2, self.layer3 = stages
        self.feature_dim = widths[-1]
        self.norm = nn.BatchNorm2d(self.feature_dim)
        self.classifier = nn.Linear(self.feature_dim, classes)
        initialise(self)

    def adopt(self, state: State) -> None:
        """Load all weights except the classifier's."""
        adopt(self, state, but=("classifier.weight", "classifier.bias"))

    def forward(self, x: Tensor) -> Output:
        """Return the logits, (B, classes), and the last feature map, activated."""
        features = self.maps(x)[-1]
        return Output(self.classifier(features.mean((2, 3))), features)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps of all stages, the last one activated."""
        first = self.layer1(self.stem(x))
        second = self.layer2(first)
        return [first, second, F.relu(self.norm(self.layer3(second)))]


def initialise(model: Backbone) -> None:
    """Initialise convolutions from He's normal distribution (arXiv:1502.01852), mode fan_out."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

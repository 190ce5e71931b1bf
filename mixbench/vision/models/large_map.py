"""ResNet-50, VGG-16 and Inception v3 with large last feature maps, for class activation maps.

They follow clovaai/wsolevaluation@96f4b88, wsol/resnet.py:70-118, wsol/vgg.py:32-84 and
wsol/inception.py:143-208: the last stages have stride 1, and convolutions replace the layers
between the last feature map and the classifier. For images of 224x224 pixels, feature maps are
28x28 if `large` is True, else 14x14. The layers of a trunk have torchvision's names, so that
torchvision's published weights can be loaded.
"""

from collections.abc import Callable

import timm
import torch
from timm.models.inception_v3 import InceptionB
from torch import Tensor, nn
from torch.nn import functional as F

from mixbench.contract import Backbone, Output
from mixbench.vision.models.tensors import State, adopt
from mixbench.vision.models.timm_models import Net


class LargeMapNet(Backbone):
    """A trunk, further convolutions, and a linear classifier of their spatial mean.

    Attributes
    ----------
    head_modules
        Names of the submodules whose learning rate is multiplied by the recipe's `head_lr_mult`.
    """

    classifier: nn.Linear

    def __init__(
        self,
        trunk: nn.Module,
        top: nn.Module,
        dim: int,
        classes: int,
        head_modules: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.top = top
        self.dropout = nn.Dropout(0.0)
        self.classifier = nn.Linear(dim, classes)
        self.blocks = ()
        self.head_modules = head_modules

    def forward(self, x: Tensor) -> Output:
        """Return the logits, (B, classes), and the last feature map."""
        features = self.top(self.trunk(x))
        return Output(self.classifier(self.dropout(features).mean((2, 3))), features)

    def adopt(self, state: State) -> None:
        """Load published weights into the trunk."""
        adopt(self.trunk, state)


class _Vgg(LargeMapNet):
    def adopt(self, state: State) -> None:
        """Load published weights, renumbering the convolutions, as the trunk has fewer layers."""
        theirs = sorted({int(n.split(".")[1]) for n in state if n.startswith("features.")})
        ours = [i for i, layer in enumerate(self.trunk.children()) if isinstance(layer, nn.Conv2d)]
        places = {f"features.{a}": str(b) for a, b in zip(theirs, ours, strict=False)}
        split = {name: name.rpartition(".") for name in state}
        super().adopt({
            f"{places[head]}.{tail}": state[name]
            for name, (head, _, tail) in split.items()
            if head in places
        })


def large_resnet50(classes: int, *, large: bool) -> LargeMapNet:
    """Return ResNet-50 with stride 1 in the last stage, or in the last two if `large`."""
    net: Net = timm.create_model("resnet50")
    for stage in [net.layer4, *([net.layer3] if large else [])]:
        stage[0].conv2.stride = stage[0].downsample[0].stride = (1, 1)
    trunk = nn.Sequential()
    for name in ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4"):
        trunk.add_module(name, getattr(net, name))
    model = LargeMapNet(trunk, nn.Identity(), 2048, classes, ("trunk.layer4", "classifier"))
    model.blocks = tuple(f"trunk.layer{i}" for i in (1, 2, 3, 4))
    return initialised(model, nn.init.xavier_uniform_)


def large_vgg16(classes: int, *, large: bool) -> LargeMapNet:
    """Return VGG-16 with a sixth convolution stage and without its last pooling layer.

    If `large`, the last two pooling layers are removed.
    """
    with torch.device("meta"):  # avoids allocating 100 million classifier weights
        net: Net = timm.create_model("vgg16")
    pools = [layer for layer in net.features if isinstance(layer, nn.MaxPool2d)]
    kept = pools[: 3 if large else 4]
    layers = [m for m in net.features if not isinstance(m, nn.MaxPool2d) or m in kept]
    top = nn.Sequential(nn.Conv2d(512, 1024, 3, padding=1), nn.ReLU())
    trunk = nn.Sequential(*layers).to_empty(device="cpu")
    model = _Vgg(trunk, top, 1024, classes, ("top", "classifier"))
    model.blocks = tuple(f"trunk.{layers.index(pool)}" for pool in kept)

    def he(weight: Tensor) -> Tensor:
        return nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")

    return initialised(model, he)


def large_inception_v3(classes: int, *, large: bool) -> LargeMapNet:
    """Return Inception v3 up to its last 768-channel block, followed by two convolutions.

    A pooling layer before ``Mixed_6a`` halves the feature map unless `large`.
    """
    net: Net = timm.create_model("inception_v3", aux_logits=False)
    net.Conv2d_1a_3x3.conv.padding = (1, 1)
    net.Pool1, net.Pool2 = (nn.MaxPool2d(3, 2, padding=1, ceil_mode=True) for _ in range(2))
    net.Mixed_6a = _Unpooled(288)
    trunk = nn.Sequential()
    for name, module in net.named_children():
        if name == "Mixed_6a" and not large:
            trunk.add_module("Pool3", nn.MaxPool2d(3, 2, ceil_mode=True))
        if name == "Mixed_7a":
            break
        trunk.add_module(name, module)
    top = nn.Sequential(
        *(nn.Dropout(0.5), nn.Conv2d(768, 1024, 3, padding=1), nn.ReLU()),
        *(nn.Dropout(0.5), nn.Conv2d(1024, 1024, 3, padding=1), nn.ReLU()),
    )
    model = LargeMapNet(trunk, top, 1024, classes, ("top", "classifier"))
    model.dropout.p = 0.5
    model.blocks = ("trunk.Conv2d_4a_3x3", "trunk.Mixed_5d", "trunk.Mixed_6e")
    initialised(model, nn.init.xavier_uniform_)
    nn.init.xavier_uniform_(model.classifier.weight)  # a convolution in the reference
    return model


class _Unpooled(InceptionB):
    """Inception's grid reduction block with stride 1, so that it keeps the feature map's size."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        for branch in (self.branch3x3, self.branch3x3dbl_3):
            layer: Net = branch.conv
            layer.stride = layer.padding = (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's activations, (B, 768, h, w)."""
        tower = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        pooled = F.max_pool2d(x, 3, stride=1, padding=1)
        return torch.cat([self.branch3x3(x), tower, pooled], 1)


def initialised(model: LargeMapNet, law: Callable[[Tensor], Tensor]) -> LargeMapNet:
    """Reinitialise the weights of a model and return it.

    Parameters
    ----------
    model
        Model, whose linear layers are drawn from N(0, 0.01²), and whose batch normalisations and
        biases are reset.
    law
        Function that initialises the weight of a convolution in place.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            law(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return model


LARGE_MAP: dict[str, Callable[..., LargeMapNet]] = {
    "resnet50": large_resnet50,
    "vgg16": large_vgg16,
    "inception_v3": large_inception_v3,
}

"""Any model of timm as a backbone: its classifier's output and its last map of features."""

from collections.abc import Callable
from typing import Any, Self

import timm
import torch
from torch import Tensor, nn

from mixbench.contract import Backbone, Output
from mixbench.errors import UsageError
from mixbench.vision.models.weights import State, adopt

MAPS = 4  # of strides of 4 to 32, as a rule


class TimmNet(Backbone):
    """A timm model, seen through timm's own interface to features.

    Where the features that the classifier pools are a map, they are the feature map. Where they
    are tokens, or a map with the channels last, timm lays them out as one: a transformer's tokens
    on their grid, without class tokens.

    Parameters
    ----------
    net
        Made by timm.
    name
        For error messages.
    """

    def __init__(self, net: nn.Module, name: str) -> None:
        super().__init__()
        if not hasattr(net, "forward_intermediates"):
            raise UsageError(
                f"The timm model {name} does not offer its feature maps: take another."
            )
        self.net: Any = net
        self.name = name
        self.direct = False  # whether the pooled features are the map
        infos: Any = net.feature_info
        modules = [info["module"] for info in getattr(infos, "info", infos)]
        known = dict(net.named_modules())
        # timm counts some stems as a level; what is mixed there is hardly hidden.
        deep = [m for m in modules if m in known and not m.startswith(("act", "bn", "stem"))]
        self.blocks = tuple(f"net.{module}" for module in deep)

    @property
    def classifier(self) -> nn.Module:  # type: ignore[override]  # timm's name for it differs by model
        """The last layer."""
        layer: nn.Module = self.net.get_classifier()
        return layer

    def adopt(self, state: State) -> None:
        """Start all but the classifier from timm's weights of the same model."""
        last = {id(tensor) for tensor in self.classifier.parameters()}
        names = [name for name, tensor in self.net.named_parameters() if id(tensor) in last]
        adopt(self.net, state, but=names)

    def measured(self, channels: int, size: tuple[int, int]) -> Self:
        """Find out how the features are laid out, with one blank image; return the model itself.

        Raises
        ------
        UsageError
            If the model does not take images of this size, or has no single map of features.
        """
        blank = torch.zeros(1, channels, *size)
        self.eval()
        try:
            with torch.no_grad():
                last = self.net.forward_features(blank)
                if not isinstance(last, Tensor):
                    raise UsageError(f"{self.name} has no single map of features: take another.")
                self.direct = last.dim() == 4 and last.shape[1] == self.net.num_features
                self(blank)
        except (
            AssertionError,
            AttributeError,
            IndexError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            raise UsageError(
                f"{self.name} does not take images of {size[0]} x {size[1]} pixels: {error}"
            ) from error
        return self.train()

    def forward(self, x: Tensor) -> Output:
        """Return the logits, (B, classes), and the last feature map."""
        if self.direct:
            features = last = self.net.forward_features(x)
        else:
            last, maps = self.net.forward_intermediates(x, indices=1, output_fmt="NCHW")
            features = maps[-1]
        return Output(self.net.forward_head(last), features)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Return the last feature maps, up to four, the last of which may not be what is pooled."""
        maps: list[Tensor] = self.net.forward_intermediates(
            x, indices=min(len(self.blocks), MAPS), output_fmt="NCHW", intermediates_only=True
        )
        return maps


def timm_net(name: str, classes: int, channels: int, size: tuple[int, int]) -> TimmNet:
    """Return a freshly initialised timm model for images of a size; nothing is downloaded.

    Raises
    ------
    UsageError
        If timm cannot make it for this size.
    """
    config = timm.get_pretrained_cfg(name)
    fixed = config is not None and config.fixed_input_size
    options: dict[str, Any] = {"img_size": size} if fixed else {}
    try:
        net = timm.create_model(name, num_classes=classes, in_chans=channels, **options)
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        raise UsageError(
            f"timm cannot make {name} for images of {size[0]} x {size[1]} pixels: {error}"
        ) from error
    return TimmNet(net, name).measured(channels, size)


def small_resnet50(channels: int, classes: int) -> TimmNet:
    """Return ResNet-50 for small images: a 3x3 stem of stride 1, and no pooling after it."""
    net: Any = timm.create_model("resnet50", num_classes=classes, in_chans=channels)
    net.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()
    return TimmNet(net, "resnet50").measured(channels, (32, 32))


def small_mobilenet_v2(channels: int, classes: int) -> TimmNet:
    """Return MobileNetV2 for small images: strides of 1 in the stem and the second stage."""
    net: Any = timm.create_model("mobilenetv2_100", num_classes=classes, in_chans=channels)
    net.conv_stem.stride = net.blocks[1][0].conv_dw.stride = (1, 1)
    return TimmNet(net, "mobilenet_v2").measured(channels, (32, 32))


SMALL: dict[str, Callable[[int, int], TimmNet]] = {
    "mobilenet_v2": small_mobilenet_v2,
    "resnet50": small_resnet50,
}

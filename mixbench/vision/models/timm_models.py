"""Any timm model as a backbone, which returns its logits and its last feature map."""

from collections.abc import Callable
from typing import Any, Self, TypeAlias

import timm
import torch
from torch import Tensor, nn

from mixbench.contract import Backbone, Output
from mixbench.errors import UsageError
from mixbench.vision.images.splits import Normalization
from mixbench.vision.models.weights import State, adopt

MAPS = 4  # usually with strides of 4, 8, 16 and 32
Net: TypeAlias = Any  # a module of timm, whose submodules have no static types


class TimmNet(Backbone):
    """A timm model, used through timm's feature extraction interface.

    If the features that the classifier pools are a channels-first map, they are the feature map.
    If they are tokens or a channels-last map, timm converts them to a channels-first map: the
    tokens of a transformer are arranged in their grid, without class tokens.

    Parameters
    ----------
    net
        Model created by timm.
    name
        Name of the model in timm.

    Attributes
    ----------
    normalization : (4, C)
        Mean and standard deviation of the images that the model gets, and those with which its
        initial weights were trained, to which it converts them; None if images are used as given.
        It is part of checkpoints, because the trained weights depend on it.
    """

    normalization: Tensor | None

    def __init__(self, net: nn.Module, name: str) -> None:
        super().__init__()
        if not hasattr(net, "forward_intermediates"):
            raise UsageError(
                f"The timm model {name} does not provide feature maps: choose another model."
            )
        self.net: Net = net
        self.name = name
        self.direct = False  # whether the pooled features are a channels-first map
        self.register_buffer("normalization", None)
        infos: Any = net.feature_info
        modules = [info["module"] for info in getattr(infos, "info", infos)]
        known = dict(net.named_modules())
        # timm lists some stems as feature levels, but mixing there is close to mixing the input.
        deep = [m for m in modules if m in known and not m.startswith(("act", "bn", "stem"))]
        self.blocks = tuple(f"net.{module}" for module in deep)

    def convert(self, given: Normalization, own: Normalization) -> None:
        """Convert images with one normalisation to another before they enter the network."""
        values = torch.tensor([*given, *own], device=next(self.net.parameters()).device)
        self.register_buffer("normalization", values)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *more: Any) -> None:
        """Take over the normalisation of a checkpoint; a new model has none."""
        self.register_buffer("normalization", state_dict.get(f"{prefix}normalization"))
        super()._load_from_state_dict(state_dict, prefix, *more)

    @property
    def classifier(self) -> nn.Module:  # type: ignore[override]  # its name in timm varies
        """The last layer, which maps pooled features to logits."""
        layer: nn.Module = self.net.get_classifier()
        return layer

    def adopt(self, state: State) -> None:
        """Load timm's weights of the same model, except the classifier's."""
        last = {id(tensor) for tensor in self.classifier.parameters()}
        names = [name for name, tensor in self.net.named_parameters() if id(tensor) in last]
        adopt(self.net, state, but=names)

    def measured(self, channels: int, size: tuple[int, int]) -> Self:
        """Detect the layout of the features with one blank image, and return the model itself.

        Raises
        ------
        UsageError
            If the model does not accept images of this size, or has no single feature map.
        """
        blank = torch.zeros(1, channels, *size)
        self.eval()
        try:
            with torch.no_grad():
                last = self.net.forward_features(blank)
                if not isinstance(last, Tensor):
                    raise UsageError(
                        f"{self.name} has no single feature map: choose another model."
                    )
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
        x = self._as_trained(x)
        if self.direct:
            features = last = self.net.forward_features(x)
        else:
            last, maps = self.net.forward_intermediates(x, indices=1, output_fmt="NCHW")
            features = maps[-1]
        return Output(self.net.forward_head(last), features)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Return the last feature maps, at most four; the last may differ from `forward`'s."""
        maps: list[Tensor] = self.net.forward_intermediates(
            self._as_trained(x),
            indices=min(len(self.blocks), MAPS),
            output_fmt="NCHW",
            intermediates_only=True,
        )
        return maps

    def _as_trained(self, x: Tensor) -> Tensor:
        """Return images with the normalisation of the weights."""
        if self.normalization is None:
            return x
        mean, std, own_mean, own_std = self.normalization[..., None, None].unbind()
        return x * (std / own_std) + (mean - own_mean) / own_std


def normalization_of(name: str, tag: str) -> Normalization | None:
    """Return the normalisation with which timm's weights of a model were trained, if it is known.

    Parameters
    ----------
    name
        Name of the model in timm.
    tag
        timm's tag of the weights; "" for timm's default.

    Raises
    ------
    UsageError
        If timm has no weights with this tag.
    """
    called = f"{name}.{tag}" if tag else name
    try:
        config = timm.get_pretrained_cfg(called)
    except RuntimeError as error:
        raise UsageError(f"timm has no weights {called}: {error}") from error
    return Normalization(tuple(config.mean), tuple(config.std)) if config is not None else None


def timm_net(name: str, classes: int, channels: int, size: tuple[int, int]) -> TimmNet:
    """Return a freshly initialised timm model, without downloading anything.

    Parameters
    ----------
    name
        Name of the model in timm.
    classes
        Number of outputs of the classifier.
    channels
        Number of channels of the images.
    size
        Height and width of the images in pixels.

    Raises
    ------
    UsageError
        If timm cannot create the model for this image size.
    """
    config = timm.get_pretrained_cfg(name)
    fixed = config is not None and config.fixed_input_size
    options: dict[str, Any] = {"img_size": size} if fixed else {}
    try:
        net = timm.create_model(name, num_classes=classes, in_chans=channels, **options)
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        raise UsageError(
            f"timm cannot create {name} for images of {size[0]} x {size[1]} pixels: {error}"
        ) from error
    return TimmNet(net, name).measured(channels, size)


def small_resnet50(channels: int, classes: int) -> TimmNet:
    """Return ResNet-50 for small images, with a 3x3 stem of stride 1 and no pooling after it."""
    net: Net = timm.create_model("resnet50", num_classes=classes, in_chans=channels)
    net.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()
    return TimmNet(net, "resnet50").measured(channels, (32, 32))


def small_mobilenet_v2(channels: int, classes: int) -> TimmNet:
    """Return MobileNetV2 for small images, with stride 1 in the stem and the second stage."""
    net: Net = timm.create_model("mobilenetv2_100", num_classes=classes, in_chans=channels)
    net.conv_stem.stride = net.blocks[1][0].conv_dw.stride = (1, 1)
    return TimmNet(net, "mobilenet_v2").measured(channels, (32, 32))


SMALL: dict[str, Callable[[int, int], TimmNet]] = {
    "mobilenet_v2": small_mobilenet_v2,
    "resnet50": small_resnet50,
}

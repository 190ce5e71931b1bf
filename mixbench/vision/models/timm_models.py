"""Any timm model as a backbone, which returns its logits and its last feature map."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from math import prod
from typing import Any, Self, TypeAlias, cast

import timm
import torch
from timm.layers.drop import DropPath
from timm.models import group_parameters
from torch import Tensor, nn

from mixbench.contract import AttentionKind, Backbone, Normalization, Output
from mixbench.errors import UsageError
from mixbench.vision.models.tensors import State, adopt_but
from mixbench.vision.models.trial import refused_as, try_size

EMBEDDINGS = ("patch_embed", "stem", "conv_stem", "conv1")  # timm's names, the first that exists
MAPS = 4  # usually with strides of 4, 8, 16 and 32
RELATIVE = 1000  # difference to the largest that is not rounding
Net: TypeAlias = Any  # a module of timm, whose submodules have no static types


class _Stop(Exception):  # no error
    """Ends a forward pass whose first part is all that is asked for."""


class TimmNet(Backbone):
    """A timm model, used through timm's feature extraction interface.

    If the features that the classifier pools are a channels-first map, they are the feature map.
    If they are tokens or a channels-last map, timm converts them to a channels-first map: the
    tokens of a transformer are arranged in their grid, without class tokens.

    Parameters
    ----------
    create
        Function that creates the model with timm, with further options of timm.
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

    _shape: tuple[int, tuple[int, int]]  # channels and size of the images for which it is measured
    _grid: tuple[int, ...] = (1, 1)  # of the embedded patches
    _in_tokens = False  # whether they are (B, N, C)
    _channels_first = True

    def __init__(self, create: Callable[..., nn.Module], name: str) -> None:
        super().__init__()
        self._create = create
        net = create()
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
        found = next((name for name in EMBEDDINGS if name in known), "")
        self.embedding = f"net.{found}" if found else ""
        self._keeps_attention: AttentionKind | None = None

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

    def to_map(self, tokens: Tensor) -> Tensor:
        """Return embedded patches as a map: (B, N, C) or (B, h, w, C) becomes (B, C, h, w)."""
        if tokens.dim() == 3:  # (B, N, C)
            mapped: Tensor = tokens.mT.unflatten(2, self._grid)
            return mapped
        return tokens if self._channels_first else tokens.permute(0, 3, 1, 2)

    def from_map(self, mapped: Tensor) -> Tensor:
        """Return a map in the form in which the network embeds patches."""
        if self._in_tokens:
            return mapped.flatten(2).mT
        return mapped if self._channels_first else mapped.permute(0, 2, 3, 1)

    def keep_attention(self, kind: AttentionKind = "class_token") -> None:
        """Return attention with every output from now on."""
        blocks = getattr(self.net, "blocks", None) or ()
        layers: list[Net] = [getattr(block, "attn", None) for block in blocks]
        known = all(hasattr(layer, "attn_drop") for layer in layers)
        if not (layers and known and hasattr(self.net, "num_prefix_tokens")):
            raise UsageError(f"{self.name} has no attention maps: choose a ViT of timm.")
        self._keeps_attention = kind
        for layer in layers if kind == "rollout" else layers[-1:]:
            layer.fused_attn = False  # a fused kernel does not return its weights
            layer.attn_drop.register_forward_hook(_keep)
        with refused_as(f"{self.name} has no attention maps: choose a ViT of timm"):
            try_size(self, *self._shape)

    def _attention_map(self, kind: AttentionKind) -> Tensor:
        """Return the kept attention, (B, h, w), and forget it."""
        places = [block.attn.attn_drop for block in self.net.blocks]
        kept = [place.__dict__.pop("kept") for place in places if "kept" in place.__dict__]
        first, size = self.net.num_prefix_tokens, kept[-1].shape[-1]
        tokens = torch.arange(size, device=kept[-1].device)
        pooled = self.net.global_pool != "token" or kind == "patches"
        asking = (tokens >= first if pooled else tokens == 0).to(kept[-1].dtype)
        row = (asking / asking.sum()).expand(len(kept[-1]), 1, size)
        for weights in reversed(kept):
            attended = row @ weights
            row = (row + attended) / 2 if kind == "rollout" else attended
        found = row[:, 0, first:]
        if kind != "rollout":
            found = found / found.sum(1, keepdim=True)
        mapped: Tensor = found.unflatten(1, self._grid)
        return mapped

    def set_drop_path(self, rate: float) -> None:
        """Take over the stochastic depth of a network that timm creates with this rate."""
        other: Net = self._create(drop_path_rate=rate)
        dropped = {name: m for name, m in other.named_modules() if isinstance(m, DropPath)}
        if not dropped:
            super().set_drop_path(rate)
        for name, module in dropped.items():
            place, _, attribute = name.rpartition(".")
            setattr(self.net.get_submodule(place), attribute, module)

    def depths(self) -> Iterator[tuple[nn.Parameter, int]]:
        """Yield each parameter with the number of timm's layers between its own and the last."""
        if not hasattr(self.net, "group_matcher"):
            yield from super().depths()
            return
        named = dict(self.net.named_parameters())
        layers = group_parameters(self.net, self.net.group_matcher(coarse=False), reverse=True)
        last = max(layers.values())
        yield from ((named[name], last - layer) for name, layer in layers.items())

    def adopt(self, state: State) -> None:
        """Load timm's weights of the same model, except the classifier's."""
        adopt_but(self.net, self.classifier, state)

    def measured(self, channels: int, size: tuple[int, int]) -> Self:
        """Detect the layout of the features with one blank image, and return the model itself.

        Raises
        ------
        UsageError
            If the model does not accept images of this size, or has no single feature map.
        """
        self._shape = channels, size
        blank = torch.zeros(1, channels, *size, device=self._device)
        self.eval()
        with (
            refused_as(f"{self.name} does not take images of {size[0]} x {size[1]} pixels"),
            torch.no_grad(),
        ):
            last = self.net.forward_features(blank)
            if not isinstance(last, Tensor):
                raise UsageError(f"{self.name} has no single feature map: choose another model.")
            self.direct = last.dim() == 4 and last.shape[1] == self.net.num_features
            self(blank)
        if self.embedding and not self._measure_embedding():
            self.embedding = ""
        return self.train()

    @property
    def _device(self) -> torch.device:
        return next(self.net.parameters()).device  # type: ignore[no-any-return]  # of timm

    def _measure_embedding(self) -> bool:
        """Detect the layout of the embedded patches; return whether it could be detected."""
        embedded = self._embedded_patches()
        if not isinstance(embedded, Tensor):
            return False
        if embedded.dim() == 3:  # (B, N, C)
            self._in_tokens = True
            self._grid = getattr(self.get_submodule(self.embedding), "grid_size", None) or (0, 0)
            return prod(self._grid) == embedded.shape[1]
        if embedded.dim() != 4:
            return False
        # The two images differ in a corner: the maps do so in all channels, but not in all places.
        changed = embedded.diff(dim=0)[0].abs()
        changed = changed > changed.max() / RELATIVE
        first, _, last = (float(changed.movedim(axis, 0).flatten(1).any(1).float().mean())
                          for axis in range(3))  # fmt: skip
        self._channels_first = first > last
        self._grid = tuple(embedded.shape[2:] if first > last else embedded.shape[1:3])
        return first != last

    def _embedded_patches(self) -> object:
        """Return what the embedding returns for two images that differ in a corner."""
        rng = torch.Generator().manual_seed(0)  # not the global one, from which weights are drawn
        channels, (height, width) = self._shape
        images = torch.rand(1, channels, height, width, generator=rng).repeat(2, 1, 1, 1)
        images[1, :, : height // 8 or 1, : width // 8 or 1] += 1
        images = images.to(self._device)
        seen: list[object] = []

        def stop(_module: nn.Module, _inputs: object, out: object) -> None:
            seen.append(out)
            raise _Stop

        handle = self.get_submodule(self.embedding).register_forward_hook(stop)
        with torch.no_grad(), suppress(_Stop):
            self.net.forward_features(images)
        handle.remove()
        return seen[0] if seen else None

    def forward(self, x: Tensor) -> Output:
        """Return the logits, (B, classes), and the last feature map."""
        x = self._as_trained(x)
        if self.direct:
            features = last = self.net.forward_features(x)
        else:
            last, maps = self.net.forward_intermediates(x, indices=1, output_fmt="NCHW")
            features = maps[-1]
        kind = self._keeps_attention
        attention = self._attention_map(kind) if kind else None
        return Output(self.net.forward_head(last), features, attention)

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


def _keep(module: nn.Module, _inputs: tuple[Tensor, ...], weights: Tensor) -> None:
    """Keep the mean over the heads in the module, where a copy of the model has its own."""
    module.__dict__["kept"] = weights.mean(1)


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
    create = partial(timm.create_model, name, num_classes=classes, in_chans=channels, **options)
    with refused_as(f"timm cannot create {name} for images of {size[0]} x {size[1]} pixels"):
        net = TimmNet(create, name)
    return net.measured(channels, size)


def _small_resnet50(channels: int, classes: int, **options: Any) -> nn.Module:
    net: Net = timm.create_model("resnet50", num_classes=classes, in_chans=channels, **options)
    net.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()
    return cast(nn.Module, net)


def small_resnet50(channels: int, classes: int) -> TimmNet:
    """Return ResNet-50 for small images, with a 3x3 stem of stride 1 and no pooling after it."""
    create = partial(_small_resnet50, channels, classes)
    return TimmNet(create, "resnet50").measured(channels, (32, 32))


def _small_mobilenet_v2(channels: int, classes: int, **options: Any) -> nn.Module:
    net: Net = timm.create_model(
        "mobilenetv2_100", num_classes=classes, in_chans=channels, **options
    )
    net.conv_stem.stride = net.blocks[1][0].conv_dw.stride = (1, 1)
    return cast(nn.Module, net)


def small_mobilenet_v2(channels: int, classes: int) -> TimmNet:
    """Return MobileNetV2 for small images, with stride 1 in the stem and the second stage."""
    create = partial(_small_mobilenet_v2, channels, classes)
    return TimmNet(create, "mobilenet_v2").measured(channels, (32, 32))


SMALL: dict[str, Callable[[int, int], TimmNet]] = {
    "mobilenet_v2": small_mobilenet_v2,
    "resnet50": small_resnet50,
}
PATCHES, SMALL_STEM = 8, 32  # along each side, of a ViT; largest side for a stem of stride 1


def small_patches(name: str, channels: int, classes: int, size: tuple[int, int]) -> TimmNet:
    """Return a ViT or ConvNeXt of timm with patches that suit small images.

    A ViT gets 8 patches along the longer side. The last map of a ConvNeXt has an eighth of the
    sides of images of up to 32 pixels, and a sixteenth of those of larger ones.

    Parameters
    ----------
    name
        Name of the model in timm.
    channels, classes
        Number of channels of the images, and of outputs of the classifier.
    size : pixels
        Height and width of the images.
    """
    if "convnext" in name:
        options: dict[str, Any] = {"patch_size": 1}
        if max(size) > SMALL_STEM:
            options = {"patch_size": 2, "output_stride": 16}
    else:
        options = {"img_size": size, "patch_size": max(max(size) // PATCHES, 1)}
    create = partial(timm.create_model, name, num_classes=classes, in_chans=channels, **options)
    return TimmNet(create, name).measured(channels, size)

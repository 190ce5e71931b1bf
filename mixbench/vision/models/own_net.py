"""Any network of the user's own as a backbone: its blocks and last feature map are found."""

import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model

from mixbench.contract import Backbone, Output
from mixbench.errors import UsageError
from mixbench.registry.model_names import TORCHVISION
from mixbench.vision.models.tensors import State, adopt_but
from mixbench.vision.models.trial import refused_as

FEWEST_BLOCKS = 2
# Layers that are parts of a block, not blocks.
LAYERS = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.Linear)


class OwnNet(Backbone):
    """A network that returns logits, (B, classes), or an object with `logits`.

    The last feature map is the output of the last module that returns a map, (B, D, h, w), of more
    than one place. The blocks are the modules on the way to it that hold several layers.

    Parameters
    ----------
    net
        The network. It may be compiled or wrapped for distributed training.
    shape
        Channels, height and width of its images.
    blocks
        Names of the modules of `net` at which a method may mix; found if empty.
    features
        Name of the module of `net` that returns the last feature map; found if empty.

    Raises
    ------
    UsageError
        If the network does not take such images, returns no logits, or has no feature map.
    """

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, int, int],
        blocks: Sequence[str] = (),
        features: str = "",
    ) -> None:
        super().__init__()
        self.net = net
        inner = self._within
        self._name = type(inner).__name__
        self._kept: list[Tensor] = []
        prefix = next(name for name, module in self.named_modules() if module is inner)
        called, logits = self._called(shape)
        self.num_classes = logits.shape[1]
        maps = {
            name: out
            for name, out in called.items()
            if isinstance(out, Tensor) and _is_map(out, shape)
        }
        found = features or next(reversed(maps), "")
        if found not in maps:
            raise UsageError(
                f"{self._name} needs a module that returns a feature map, (B, D, h, w) with more "
                f"than one place, for `features` (got {found or 'none'}; it has: "
                f"{', '.join(maps) or 'none'}). timm's models work without."
            )
        later = self._mixing_after(found, called)
        self._unfit = later and (
            f"{self._name} has no feature map after its last layers, of which {later} follows "
            f"{found}: choose a network of timm, which has maps of transformers."
        )
        self._map = (maps[found].shape[1], maps[found].shape[2], maps[found].shape[3])
        unknown = [name for name in blocks if name not in maps]
        if unknown:
            raise UsageError(
                f"`blocks` of {self._name} must be modules that return a feature map (got "
                f"{', '.join(unknown)}; it has: {', '.join(maps)})."
            )
        self.blocks = tuple(f"{prefix}.{name}" for name in blocks or self._found_blocks(maps))
        linear = [n for n in called if isinstance(inner.get_submodule(n), nn.Linear)]
        self._last = linear[-1] if linear else ""
        self.head_modules = (f"{prefix}.{self._last}",) if linear else ()
        inner.get_submodule(found).register_forward_hook(self._keep)

    @property
    def _feature_map(self) -> tuple[int, int, int]:
        """Channels, height and width of the last feature map."""
        if self._unfit:
            raise UsageError(self._unfit)
        return self._map

    @property
    def feature_dim(self) -> int:  # type: ignore[override]  # it may be missing
        """Number of channels of the last feature map.

        Raises
        ------
        UsageError
            If the network has none after its last layers.
        """
        return self._feature_map[0]

    @property
    def feature_size(self) -> tuple[int, int]:  # type: ignore[override]  # it may be missing
        """Height and width of the last feature map; raises as `feature_dim`."""
        return self._feature_map[1:]

    @property
    def _within(self) -> nn.Module:
        """The network without what torch.compile and DistributedDataParallel put around it."""
        inner: nn.Module = getattr(self.net, "_orig_mod", self.net)
        return getattr(inner, "module", inner)

    @property
    def classifier(self) -> nn.Module:  # type: ignore[override]  # its name is the network's
        """The last linear layer.

        Raises
        ------
        UsageError
            If the network has none.
        """
        if not self._last:
            raise UsageError(f"{self._name} has no linear layer as a classifier.")
        return self._within.get_submodule(self._last)

    def adopt(self, state: State) -> None:
        """Load the weights of the same network, except those of the last linear layer."""
        adopt_but(self._within, self.classifier, state)

    def forward(self, x: Tensor) -> Output:
        """Return the logits and the last feature map."""
        self._kept.clear()
        found = self.net(x)
        features = self._kept.pop()
        return Output(getattr(found, "logits", found), features)

    def _keep(self, _module: nn.Module, _inputs: tuple[object, ...], out: Tensor) -> None:
        self._kept.append(out)

    def _called(self, shape: tuple[int, int, int]) -> tuple[dict[str, object], Tensor]:
        """Return the output of each module for a blank image, in the order of calls, and logits."""
        outputs: dict[str, object] = {}

        def note(name: str) -> Any:
            def hook(_module: nn.Module, _inputs: object, out: object) -> None:
                outputs.pop(name, None)
                outputs[name] = out

            return hook

        named = [(name, module) for name, module in self._within.named_modules() if name]
        handles = [module.register_forward_hook(note(name)) for name, module in named]
        training, device = self.training, next(self._within.parameters()).device
        modes = {module: module.training for module in self._within.modules()}
        self._within.eval()
        said = f"{self._name} does not take images of the shape {shape}"
        try:
            with refused_as(said), torch.no_grad():
                found = self._within(torch.zeros(1, *shape, device=device))
        finally:
            for handle in handles:
                handle.remove()
            for module, mode in modes.items():
                module.training = mode
            self.training = training
        logits = getattr(found, "logits", found)
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            raise UsageError(
                f"{self._name} must return logits, (B, classes), or an object with `logits` (got "
                f"{tuple(logits.shape) if isinstance(logits, Tensor) else type(found).__name__})."
            )
        return outputs, logits

    def _mixing_after(self, found: str, called: Mapping[str, object]) -> str:
        """Return a layer with weights that keeps places apart after the last map; "" if none."""
        names = [*called]
        for name in names[names.index(found) + 1 :]:
            out, module = called[name], self._within.get_submodule(name)
            own = any(True for _ in module.parameters(recurse=False))
            if own and not (isinstance(out, Tensor) and (out.dim() == 2 or out[0, 0].numel() == 1)):
                return name
        return ""

    def _found_blocks(self, maps: Mapping[str, Tensor]) -> list[str]:
        """Return the modules that hold several layers, at the highest level that has several."""
        place, within = "", self._within
        while True:
            named = {f"{place}{name}": child for name, child in within.named_children()}
            blocks = [n for n, m in named.items() if n in maps and _parts(m) > 1]
            if len(blocks) >= FEWEST_BLOCKS or not named:
                return blocks
            largest = max(named, key=lambda name: _parts(named[name]))
            if _parts(named[largest]) <= 1:
                return blocks
            place, within = f"{largest}.", named[largest]


def own_net(name: str, classes: int, shape: tuple[int, int, int]) -> OwnNet:
    """Return a network of torchvision, or of a file of the user's own.

    Parameters
    ----------
    name
        Name in torchvision with the prefix of `TORCHVISION`; or the path of a Python file with a
        function ``build(num_classes)``, and optionally the names ``BLOCKS`` and ``FEATURES`` of
        modules of the network, which are found otherwise.
    classes
        Number of classes.
    shape
        Channels, height and width of the images.

    Raises
    ------
    UsageError
        If the file does not define such a function, or the network does not fit.
    """
    if name.startswith(TORCHVISION):
        create = partial(get_model, name.removeprefix(TORCHVISION), weights=None)
        with warnings.catch_warnings(), refused_as(f"torchvision cannot create {name}"):
            warnings.simplefilter("ignore", FutureWarning)  # of slow initial weights
            return _fitting(OwnNet(create(num_classes=classes), shape), name, classes, shape)
    file = _loaded(Path(name))
    if not callable(getattr(file, "build", None)):
        raise UsageError(f"{name} must define a function build(num_classes).")
    try:
        net = file.build(classes)
    except Exception as error:  # the user's function may raise anything
        raise UsageError(
            f"{name}: build({classes}) raises {type(error).__name__}: {error}"
        ) from error
    if not isinstance(net, nn.Module):
        raise UsageError(
            f"{name}: build({classes}) must return a torch.nn.Module (got {type(net).__name__})."
        )
    if isinstance(net, Backbone):
        raise UsageError(f"{name}: build({classes}) must return a plain module, no Backbone.")
    own = OwnNet(net, shape, getattr(file, "BLOCKS", ()), getattr(file, "FEATURES", ""))
    return _fitting(own, name, classes, shape)


def _fitting(own: OwnNet, name: str, classes: int, shape: tuple[int, int, int]) -> OwnNet:
    """Return a network, after checking its number of classes and that it can be trained.

    Raises
    ------
    UsageError
        If it has other classes, or raises in training mode for images of this size.
    """
    _ = own.feature_dim  # raises if there is no map
    if own.num_classes != classes:
        raise UsageError(
            f"{name}: the network for {classes} classes must return as many logits (got "
            f"{own.num_classes})."
        )
    before = {key: tensor.clone() for key, tensor in own.state_dict().items()}
    said = f"{name} cannot be trained on images of {shape[1]} x {shape[2]} pixels"
    with refused_as(said), torch.no_grad(), torch.random.fork_rng():
        own.train()(torch.zeros(2, *shape))
    own.load_state_dict(before)  # of batch norms
    return own


def _loaded(path: Path) -> ModuleType:
    """Import a file of the user's own."""
    spec = spec_from_file_location(f"mixbench_model_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    if str(path.parent) not in sys.path:  # for what lies beside it
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's file may raise anything
        raise UsageError(f"{path}: importing it raises {type(error).__name__}: {error}") from error
    return module


def _is_map(out: Tensor, shape: tuple[int, int, int]) -> bool:
    """Return whether an output is a map of more than one place, as high and wide as the images.

    Maps whose channels are last, (B, h, w, D), are none.
    """
    if out.dim() != 4 or out.shape[2] * out.shape[3] <= 1:
        return False
    rows, columns = out.shape[2:]
    return abs(rows * shape[2] - columns * shape[1]) <= max(shape[1:])


def _parts(module: nn.Module) -> int:
    """Return the number of layers with weights in a module."""
    return sum(isinstance(one, LAYERS) for one in module.modules())

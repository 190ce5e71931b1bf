"""mixbench: a benchmark of mixing augmentations, their gains and their costs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixbench.loops.mixed_loss import MixedLoss
    from mixbench.loops.transform import Transform, transform

__version__ = "0.1.0"
__all__ = ["MixedLoss", "Transform", "transform"]


def __getattr__(name: str) -> Any:
    """Import what training loops use, and with it torch, when it is asked for."""
    if name == "MixedLoss":
        from mixbench.loops.mixed_loss import MixedLoss

        return MixedLoss
    if name in __all__:
        from mixbench.loops import transform as module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

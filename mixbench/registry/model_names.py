"""The names of the models of timm and torchvision, read without importing torch."""

import importlib.util
import re
from functools import cache
from pathlib import Path

HUB = "hf-hub:"  # prefix of the ids of models of the Hugging Face Hub, as in timm
TORCHVISION = "torchvision."  # prefix of the names of torchvision's models


@cache
def timm_models() -> frozenset[str]:
    """Return the names of all models that timm registers; empty if timm is not installed."""
    return _registered("timm", r"@register_model\s+def (\w+)\(")


@cache
def torchvision_models() -> frozenset[str]:
    """Return the names of torchvision's classifiers; empty if torchvision is not installed."""
    return _registered("torchvision", r"@register_model\(\)(?:\s+@\w+\(.*\))?\s+def (\w+)\(")


def _registered(package: str, pattern: str) -> frozenset[str]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return frozenset()
    files = (Path(spec.origin).parent / "models").glob("*.py")
    return frozenset(
        name for path in files for name in re.findall(pattern, path.read_text(encoding="utf-8"))
    )

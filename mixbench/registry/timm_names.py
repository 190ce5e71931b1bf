"""The names of timm's models, read without importing timm, which would import torch."""

import importlib.util
import re
from functools import cache
from pathlib import Path


@cache
def timm_models() -> frozenset[str]:
    """Return the names of all models that timm registers; empty if timm is not installed."""
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        return frozenset()
    files = (Path(spec.origin).parent / "models").glob("*.py")
    return frozenset(
        name
        for path in files
        for name in re.findall(r"@register_model\s+def (\w+)\(", path.read_text(encoding="utf-8"))
    )

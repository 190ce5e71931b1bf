"""Kinds of networks by name: a recipe for one kind rarely suits another."""

import re
from typing import Literal, TypeAlias

NetKind: TypeAlias = Literal["convolutional", "transformer", "convnext"]
# Beginnings of the names that timm gives to transformers.
TRANSFORMERS = (
    *("vit", "deit", "swin", "beit", "cait", "xcit", "pvt", "twins", "eva", "crossvit", "pit"),
    *("tnt", "volo", "coat", "convit", "davit", "maxvit", "mvit", "nest", "visformer", "levit"),
    *("gcvit", "flexivit", "samvit", "naflexvit", "hiera", "mobilevit", "efficientvit"),
)


def net_kind(model: str) -> NetKind:
    """Return the kind of a model, from its name."""
    name = re.sub(r"^(small_)?(test_)?", "", model)
    if name.startswith("convnext"):
        return "convnext"
    return "transformer" if name.startswith(TRANSFORMERS) else "convolutional"

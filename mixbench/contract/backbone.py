"""What every model has: a prediction, its last feature map, and names for its parts."""

from typing import NamedTuple

from torch import Tensor, nn


class Output(NamedTuple):
    """What a backbone returns.

    Attributes
    ----------
    out
        The prediction in the form that the task's loss takes, (B, classes) for classification.
    features : (B, D, h, w)
        The last feature map.
    """

    out: Tensor
    features: Tensor


class Backbone(nn.Module):
    """A model as tasks build it. Its ``forward`` returns `Output`.

    A model may also have a method ``loss``, as the task's, where its own parameters take part in
    the loss: a captioning decoder's, or a detector's. The task's loss is then not used.

    Attributes
    ----------
    feature_dim
        D, the depth of the last feature map.
    feature_size
        Its height and width.
    blocks
        Names of the submodules at which a method may mix, from the input to the output: ``block1``,
        ``block2``, ... in `Method.sites`.
    classifier
        The last layer.
    head_modules
        Names of the submodules that learn at the recipe's `head_lr_mult`.
    """

    feature_dim: int
    feature_size: tuple[int, int]
    blocks: tuple[str, ...]
    classifier: nn.Module
    head_modules: tuple[str, ...] = ("classifier",)

    def forward(self, x: Tensor) -> Output:
        """Return the prediction and the last feature map of images, (B, C, H, W)."""
        raise NotImplementedError

    def maps(self, x: Tensor) -> list[Tensor]:  # noqa: ARG002  # for models that have several
        """Return the feature maps of several resolutions, the last one last; empty if unknown."""
        return []

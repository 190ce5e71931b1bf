"""The interface of models: a prediction, the last feature map, and names of submodules."""

from typing import NamedTuple

from torch import Tensor, nn


class Output(NamedTuple):
    """The output of a backbone.

    Attributes
    ----------
    out
        Prediction in the form that the task's loss takes; (B, classes) for classification.
    features : (B, D, h, w)
        Last feature map.
    """

    out: Tensor
    features: Tensor


class Backbone(nn.Module):
    """A model that a task builds. Its ``forward`` returns an `Output`.

    A model may define a method ``loss`` with the signature of `Task.loss`, which then replaces the
    task's loss. Define it if the loss uses parameters of the model, as in a captioning decoder or
    a detector.

    Attributes
    ----------
    feature_dim
        Number of channels D of the last feature map.
    feature_size
        Height and width of the last feature map.
    blocks
        Names of the submodules at which a method may mix, from the input to the output;
        `Method.sites` calls them ``block1``, ``block2``, ...
    classifier
        Last layer of the model.
    head_modules
        Names of the submodules whose learning rate is multiplied by the recipe's `head_lr_mult`.
    """

    feature_dim: int
    feature_size: tuple[int, int]
    blocks: tuple[str, ...]
    classifier: nn.Module
    head_modules: tuple[str, ...] = ("classifier",)

    def forward(self, x: Tensor) -> Output:
        """Return the prediction and the last feature map of images of shape (B, C, H, W)."""
        raise NotImplementedError

    def maps(self, x: Tensor) -> list[Tensor]:
        """Return feature maps of several resolutions, from input to output; empty if unknown."""
        return []

"""The interface of models: a prediction, the last feature map, and names of submodules."""

from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

from torch import Tensor, nn

from mixbench.errors import UsageError

# Attention that a model returns as a map over the places of its feature map, averaged over heads.
# ``class_token``: that which the class token, or the pooled tokens, pay to each place in the last
# block. ``patches``: that which all places pay to each place in the last block. ``rollout``: what
# the class token, or the mean of the pooled tokens, has from each place after all blocks, if every
# block takes the mean of each token and of what the token attends to (arXiv:2005.00928).
AttentionKind: TypeAlias = Literal["class_token", "patches", "rollout"]


class Output(NamedTuple):
    """The output of a backbone.

    Attributes
    ----------
    out
        Prediction in the form that the task's loss takes; (B, classes) for classification.
    features : (B, D, h, w)
        Last feature map.
    attention : (B, h, w)
        Attention to each place of the feature map, of the kind that the method asks for
        (`Method.needs_attention`, `Method.attention`). Each map sums to 1; a ``rollout`` sums to
        less, the rest being from tokens that are no places. None unless the method asks for it.
    """

    out: Tensor
    features: Tensor
    attention: Tensor | None = None


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
    embedding
        Name of the submodule that turns images into tokens, or into the first feature map;
        `Method.sites` calls its output ``tokens``. Empty if there is none.
    classifier
        Last layer of the model.
    head_modules
        Names of the submodules whose learning rate is multiplied by the recipe's `head_lr_mult`.
    """

    feature_dim: int
    feature_size: tuple[int, int]
    blocks: tuple[str, ...]
    embedding: str = ""
    classifier: nn.Module
    head_modules: tuple[str, ...] = ("classifier",)

    def forward(self, x: Tensor) -> Output:
        """Return the prediction and the last feature map of images of shape (B, C, H, W)."""
        raise NotImplementedError

    def maps(self, x: Tensor) -> list[Tensor]:
        """Return feature maps of several resolutions, from input to output; empty if unknown."""
        return []

    def to_map(self, tokens: Tensor) -> Tensor:
        """Return the output of `embedding` as a map, (B, C, h, w); by default, it is one."""
        return tokens

    def from_map(self, mapped: Tensor) -> Tensor:
        """Return a map in the form in which `embedding` returns it."""
        return mapped

    def keep_attention(self, kind: AttentionKind = "class_token") -> None:  # for subclasses
        """Return attention with every output from now on.

        Raises
        ------
        UsageError
            If the model has no attention over places of the image.
        """
        raise UsageError(f"{type(self).__name__} has no attention maps: choose a ViT of timm.")

    def set_drop_path(self, rate: float) -> None:
        """Skip residual branches at random in training, the last one with probability `rate`.

        Raises
        ------
        UsageError
            If the model has no stochastic depth.
        """
        raise UsageError(
            f"drop_path must be 0 for {type(self).__name__}, which has no stochastic depth (got "
            f"{rate}). Choose a model of timm."
        )

    def depths(self) -> Iterator[tuple[nn.Parameter, int]]:
        """Yield each parameter with the number of layers between its own and the last.

        Raises
        ------
        UsageError
            If the model does not number its layers.
        """
        raise UsageError(
            f"layer_decay must be 1 for {type(self).__name__}, which does not number its layers. "
            "Choose a model of timm."
        )

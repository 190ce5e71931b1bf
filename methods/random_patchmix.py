"""Random PatchMix: fill the cells of a grid at random from two images and supervise every patch.

Paper    Cascante-Bonilla et al., Evolving Image Compositions for Feature Representation Learning,
         BMVC 2021, arXiv:2106.09011, §3.1-3.3 (eq. 1-5), Algorithm 1
Source   none published
Differs  where the paper does not specify a choice or contradicts itself, the choice is a parameter:
         the distribution of the cells (`cells`), the patch classifier (`head`) and the loss terms
         (`image_loss`, `patch_loss`). As in Algorithm 1, there is one mask and one permutation per
         batch, every batch is mixed, and a patch has the label of the image that it comes from
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixbench.contract import Backbone, Method, Output, Sources, Split, Step, Task, mixed_loss
from mixbench.declare import Count, Positive
from mixbench.errors import BadParameter
from mixbench.kernels import beta, cell_areas, compose_grid, permutation


class RandomPatchMix(Method):
    """Compose a P x P grid from every image and a partner.

    Parameters
    ----------
    grid
        Number P of cells along each axis of the grid.
    cells
        Distribution of the cells. ``bernoulli``: each cell keeps the original image with
        probability 1/2, which is equivalent to the rounded Beta(α, α) of Algorithm 1 for every α.
        ``beta``: with probability λ ~ Beta(α, α), sampled once per batch.
    alpha
        Parameter α of λ ~ Beta(α, α). Only used if `cells` is ``beta``.
    image_loss
        Whether to train with the loss of the whole image (eq. 3). Together with `patch_loss`, the
        loss is the mean of both (eq. 5).
    patch_loss
        Whether to train with the mean loss of the patches (eq. 4).
    head
        Patch classifier: one ``shared`` by all cells, one ``per_cell``, or the model's own
        classifier (``tied``).
    """

    version = 1

    def __init__(
        self,
        grid: Count = 4,
        cells: Literal["bernoulli", "beta"] = "bernoulli",
        alpha: Positive = 1.0,
        *,
        image_loss: bool = True,
        patch_loss: bool = True,
        head: Literal["shared", "per_cell", "tied"] = "shared",
    ) -> None:
        super().__init__()
        if not (image_loss or patch_loss):
            raise BadParameter(
                "At least one of image_loss and patch_loss must be true (got false for both)."
            )
        self.grid = grid
        self.cells = cells
        self.alpha = alpha
        self.image_loss = image_loss
        self.patch_loss = patch_loss
        self.head = head
        self.heads = nn.ModuleList()
        self._tied: list[
            nn.Module
        ] = []  # in a list, the model's classifier is not registered as a submodule

    def check(self, task: Task, held_out: Split | None) -> None:  # noqa: ARG002  # the contract
        """Check the grid against the image size of the task.

        Raises
        ------
        BadParameter
            If the grid has more cells along an axis than the image has pixels.
        """
        if self.grid > min(task.image_size):
            height, width = task.image_size
            raise BadParameter(
                f"grid must be at most the image's shorter side; images are {height} x {width} "
                f"pixels (got {self.grid}). Use a smaller grid or larger images."
            )

    def bind(self, model: Backbone, task: Task) -> None:
        """Create the patch classifiers.

        Raises
        ------
        BadParameter
            If the model's last feature map is too small for the grid, or if `head` is ``tied`` and
            the model's classifier takes another number of features than the feature map has.
        """
        if not self.patch_loss:
            return
        dim, (height, width) = model.feature_dim, model.feature_size
        if self.grid > min(height, width):
            raise BadParameter(
                f"grid must be at most the side of the model's last feature map, which is "
                f"{height} x {width} for images of {task.image_size[0]} x {task.image_size[1]} "
                f"pixels (got {self.grid}). Use a smaller grid, larger images or another model, or "
                "set patch_loss=false."
            )
        if self.head == "tied":
            classifier = model.get_submodule("classifier")
            if getattr(classifier, "in_features", dim) != dim:
                raise BadParameter(
                    f"head=tied needs a classifier of {dim} features, as the model's feature map "
                    f"has (got a classifier of {classifier.in_features}). Set head=shared or "
                    "head=per_cell, or use another model."
                )
            self._tied = [classifier]
            return
        number = self.grid**2 if self.head == "per_cell" else 1
        self.heads.extend(task.new_classifier(dim) for _ in range(number))

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the composed batch; each cell is a source, weighted by its area."""
        size = (x.shape[-2], x.shape[-1])
        own = self.random_cells(step.rng).to(x.device)
        partner = permutation(len(x), step.rng, x.device)
        items = torch.arange(len(x), device=x.device)
        index = torch.where(own, items[:, None], partner[:, None])
        weight = cell_areas(size, self.grid).to(x.device).expand(len(x), -1)
        return compose_grid(x, index, self.grid), Sources(index, weight)

    def random_cells(self, rng: torch.Generator) -> Tensor:
        """Draw a mask of the cells that keep the original image, (grid * grid,) bool."""
        share = float(beta(self.alpha, rng)) if self.cells == "beta" else 0.5
        return torch.rand(self.grid**2, generator=rng) < share

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the loss of eq. 5, or its one enabled term (eq. 3 or eq. 4)."""
        terms = []
        if self.image_loss:
            terms.append(mixed_loss(step.loss, output.out, sources, step.targets))
        if self.patch_loss:
            terms.append(self.mean_patch_loss(output, sources, step))
        return torch.stack(terms).mean()

    def mean_patch_loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the loss of eq. 4: the mean over the cells, each with its source's target."""
        patches = self.patches(output.features)
        even = Sources(sources.index, torch.full_like(sources.weight, 1 / self.grid**2))
        return mixed_loss(step.loss, patches, even, step.targets, per_source=True)

    def predict(self, output: Output) -> Tensor:
        """Return the image logits; without image loss, the log of the mean patch probabilities."""
        if self.image_loss:
            return output.out
        return self.patches(output.features).log_softmax(-1).logsumexp(1) - math.log(self.grid**2)

    def patches(self, features: Tensor) -> Tensor:
        """Return the logits of every cell, (B, grid * grid, classes).

        Adaptive pooling equals the paper's block pooling (A.8) if the side of the feature map is a
        multiple of P, and is also defined for all other sizes.
        """
        pooled = F.adaptive_avg_pool2d(features, self.grid).flatten(2).transpose(1, 2)
        heads = [*self.heads, *self._tied]
        if len(heads) == 1:
            logits: Tensor = heads[0](pooled)
            return logits
        return torch.stack([head(pooled[:, i]) for i, head in enumerate(heads)], 1)

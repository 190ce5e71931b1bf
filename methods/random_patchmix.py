"""Random PatchMix: fill a grid at random from two images, and supervise every patch.

Paper    Cascante-Bonilla et al., Evolving Image Compositions for Feature Representation Learning,
         BMVC 2021, arXiv:2106.09011, §3.1-3.3 (eq. 1-5), Algorithm 1
Source   none published
Differs  where the paper is silent or contradicts itself, the reading is a parameter: the law of the
         cells (`cells`), the patch classifier (`head`), what is supervised (`image_loss`,
         `patch_loss`). As in Algorithm 1 there is one mask and one permutation per batch, every
         batch is mixed, and a patch has the label of the image that it comes from
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
        P, cells along each axis.
    cells
        ``bernoulli``: every cell is the own image's with probability 1/2, which is what
        Algorithm 1's rounded Beta(α, α) amounts to for every α. ``beta``: with probability
        λ ~ Beta(α, α), drawn once per batch.
    alpha
        Without effect unless `cells` is ``beta``.
    image_loss, patch_loss
        What is supervised: the whole image by eq. 3, the patches by eq. 4; both by eq. 5, the mean
        of the image's loss and of the patches' mean loss.
    head
        The classifier of the patches: one ``shared`` by all, one ``per_cell``, or the model's own
        (``tied``).
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
                "One of image_loss and patch_loss must be true (got false for both)."
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
        ] = []  # a list keeps the model's classifier out of our parameters

    def check(self, task: Task, held_out: Split | None) -> None:  # noqa: ARG002  # the contract
        """Compare the grid with the task's images.

        Raises
        ------
        BadParameter
            If it has more cells along an axis than the image has pixels.
        """
        if self.grid > min(task.image_size):
            height, width = task.image_size
            raise BadParameter(
                f"grid must be at most the image's shorter side; images are {height} x {width} "
                f"pixels (got {self.grid})."
            )

    def bind(self, model: Backbone, task: Task) -> None:
        """Make the classifiers of the patches.

        Raises
        ------
        BadParameter
            If the model's last feature map is too small for the grid, or its classifier not made
            for the map's features.
        """
        if not self.patch_loss:
            return
        dim, (height, width) = model.feature_dim, model.feature_size
        if self.grid > min(height, width):
            raise BadParameter(
                f"grid must be at most the side of the model's last feature map, which is "
                f"{height} x {width} for images of {task.image_size[0]} x {task.image_size[1]} "
                f"pixels (got {self.grid}): take a smaller grid, larger images or another model, "
                "or set patch_loss=false."
            )
        if self.head == "tied":
            classifier = model.get_submodule("classifier")
            if getattr(classifier, "in_features", dim) != dim:
                raise BadParameter(
                    f"head=tied needs a classifier of the map's {dim} features; the model's takes "
                    f"{classifier.in_features}."
                )
            self._tied = [classifier]
            return
        number = self.grid**2 if self.head == "per_cell" else 1
        self.heads.extend(task.new_classifier(dim) for _ in range(number))

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the composed batch; its sources are the cells, weighted by their areas."""
        size = (x.shape[-2], x.shape[-1])
        own = self.random_cells(step.rng).to(x.device)
        partner = permutation(len(x), step.rng, x.device)
        items = torch.arange(len(x), device=x.device)
        index = torch.where(own, items[:, None], partner[:, None])
        weight = cell_areas(size, self.grid).to(x.device).expand(len(x), -1)
        return compose_grid(x, index, self.grid), Sources(index, weight)

    def random_cells(self, rng: torch.Generator) -> Tensor:
        """Draw which cells stay the own image's, (grid * grid,) bool."""
        share = float(beta(self.alpha, rng)) if self.cells == "beta" else 0.5
        return torch.rand(self.grid**2, generator=rng) < share

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return eq. 5, or the one of its terms that is switched on."""
        terms = []
        if self.image_loss:
            terms.append(mixed_loss(step.loss, output.out, sources, step.targets))
        if self.patch_loss:
            terms.append(self.mean_patch_loss(output, sources, step))
        return torch.stack(terms).mean()

    def mean_patch_loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return eq. 4: the mean of the cells' losses, each on the class of its own image."""
        patches = self.patches(output.features)
        even = Sources(sources.index, torch.full_like(sources.weight, 1 / self.grid**2))
        return mixed_loss(step.loss, patches, even, step.targets, per_source=True)

    def predict(self, output: Output) -> Tensor:
        """Return the image's logits; without an image loss, the log of the patches' mean."""
        if self.image_loss:
            return output.out
        return self.patches(output.features).log_softmax(-1).logsumexp(1) - math.log(self.grid**2)

    def patches(self, features: Tensor) -> Tensor:
        """Return the logits of every cell, (B, grid * grid, classes).

        Adaptive pooling is the paper's block pooling (A.8) where the map divides into P, and is
        defined for every other size.
        """
        pooled = F.adaptive_avg_pool2d(features, self.grid).flatten(2).transpose(1, 2)
        heads = [*self.heads, *self._tied]
        if len(heads) == 1:
            logits: Tensor = heads[0](pooled)
            return logits
        return torch.stack([head(pooled[:, i]) for i, head in enumerate(heads)], 1)

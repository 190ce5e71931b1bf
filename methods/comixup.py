"""Co-Mixup: fill the cells of several images from all of them, salient and as different as may be.

Paper    Kim et al., Co-Mixup: Saliency Guided Joint Mixup with Supermodular Diversity, ICLR 2021,
         arXiv:2102.03065, §3-4
Source   snu-mllab/Co-Mixup@2a76816, match.py:21-256, mixup.py:11-68, main.py:282-346
Differs  in the minimization of the energy of one image: the source swaps pairs of labels by graph
         cuts, with gco, a C++ extension that truncates costs to integers; this file runs iterated
         conditional modes on the two colours of a checkerboard in turn, for all parts of the batch
         at once. In the loss, which is the task's, plus `clean_lam` times that of the unmixed
         images, as the source on ImageNet; on CIFAR the source takes the binary cross-entropy of
         the softmax. Saliency is that of the model in evaluation mode
"""

from itertools import combinations
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mixbench.contract import Method, Output, Sources, Step, mixed_loss
from mixbench.declare import Count, Fraction, NonNegative, Positive
from mixbench.kernels import cell_areas, compose_grid

POOLED = 8  # side of the window whose saliency tells where an image is most salient, in pixels
BONUS, HALF = 5e-4, 0.25  # of a cell that blends two images: its gain, its cost beside one of both
PAIRS = ((0, 1), (0, 2), (1, 2))  # of the three images that fill the most cells
SWEEPS = 4


class CoMixup(Method):
    """Let every mixed image show the salient cells of several images of its part of the batch.

    Parameters
    ----------
    alpha
        Parameter of the Dirichlet distribution of how much each image is to be shown.
    grid
        Number of cells along each axis.
    part
        Number of images that are mixed together.
    smoothness
        Cost β of neighbouring cells from different images.
    diversity
        Cost γ of images that several mixed images show.
    threshold
        Share of the cells that others may fill with an image before `diversity` counts.
    prior
        Weight η of the Dirichlet distribution.
    distance
        Weight ω of the distance between the most salient places of two images.
    iterations
        Number of passes over all images of a part.
    clean_lam
        Weight of the loss of the unmixed images.
    """

    version = 1
    by_protocol: ClassVar = {"toy": {"iterations": 2}}

    def __init__(  # noqa: PLR0913  # the parameters of the source
        self,
        alpha: Positive = 2.0,
        grid: Count = 4,
        part: Count = 20,
        smoothness: NonNegative = 0.32,
        diversity: NonNegative = 1.0,
        threshold: Fraction = 0.83,
        prior: NonNegative = 0.05,
        distance: Fraction = 0.001,
        iterations: Count = 4,
        clean_lam: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        self.alpha, self.grid, self.part = alpha, grid, part
        self.smoothness, self.diversity, self.threshold = smoothness, diversity, threshold
        self.prior, self.distance, self.iterations = prior, distance, iterations
        self.clean_lam = clean_lam

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch; the weights are the fractions of pixels."""
        saliency = step.saliency()
        if self.clean_lam:
            step.num_saliency_images += len(x)  # in the loss
        size, cells = (x.shape[-2], x.shape[-1]), self.grid**2
        shares = F.adaptive_avg_pool2d(saliency[:, None], self.grid).flatten(1)
        shares = shares / shares.sum(1, keepdim=True).clamp_min(1e-12)
        places = most_salient(saliency)
        width = min(self.part, len(x))
        index = torch.zeros(len(x), width, dtype=torch.int64, device=x.device)
        weight = torch.zeros(len(x), width, device=x.device)
        filled = torch.zeros(2, len(x), cells, dtype=torch.int64, device=x.device)
        areas = cell_areas(size, self.grid).to(x.device)
        whole = len(x) // width * width
        for rows in torch.arange(len(x), device=x.device).split((whole, len(x) - whole)):
            if not len(rows):
                continue
            parts = rows.view(-1, min(width, len(rows)))
            masks = self.masks(shares[parts], places[parts], step.rng)
            both = masks.topk(min(2, masks.shape[-1]), -1)
            # A cell that shows one image entirely shows it twice.
            second = torch.where(both.values[..., -1] > 0, both.indices[..., -1],
                                 both.indices[..., 0])  # fmt: skip
            for which, found in enumerate((both.indices[..., 0], second)):
                filled[which, rows] = parts[:, 0, None, None].add(found).flatten(0, 1)
            number = parts.shape[1]
            index[rows, :number] = parts.repeat_interleave(number, 0)
            weight[rows, :number] = (masks * areas[:, None]).sum(2).flatten(0, 1)
        first, second = (compose_grid(x, cells_of, self.grid) for cells_of in filled)
        own = torch.arange(len(x), device=x.device)
        weight = weight / weight.sum(1, keepdim=True)
        return first.lerp(second, 0.5), Sources(index, weight, (own, x))

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the loss of the mixed images, and that of the unmixed ones."""
        loss = mixed_loss(step.loss, output.out, sources, step.targets)
        if self.clean_lam and sources.more:
            own, images = sources.more
            clean = step.loss(step.model(images).out, step.targets[own]).mean()
            loss = loss + self.clean_lam * clean
        return loss

    def masks(self, shares: Tensor, places: Tensor, rng: torch.Generator) -> Tensor:
        """Return how much each image of a part is shown in each cell, (N, m, cells, m).

        Parameters
        ----------
        shares : (N, m, cells)
            Share of its saliency in each cell of each image, for N parts of m images.
        places : (N, m, 2)
            Where each image is most salient.
        rng
            The random generator.
        """
        number, size, cells = shares.shape
        device = shares.device
        gammas = torch._standard_gamma(torch.full((number, size), self.alpha), generator=rng)
        prior = (gammas / gammas.sum(1, keepdim=True)).to(device)
        drawn = torch.randint(size, (number, size, cells), generator=rng).to(device)
        unary = -shares.mT - self.prior / cells * (prior + 1e-8).log()[:, None]  # (N, cells, m)
        apart = torch.cdist(places, places, p=1)
        scaled = apart / apart.sum((1, 2), keepdim=True).clamp_min(1e-12) * size
        near = (1 - self.distance) * torch.eye(size, device=device) + self.distance * scaled
        shown = F.one_hot(drawn, size).float()
        dislike = torch.zeros(number, size, size, device=device)
        total = shown.sum((1, 2))
        for turn in range(self.iterations):
            for j in range(size):
                own = shown[:, j].sum(1)
                total = total - own
                crowded = torch.einsum("nij,nj->ni", near, total) > self.threshold * cells
                cost = 2 * torch.einsum("nij,nj->ni", near, total * crowded)
                own_cost = self.diversity / cells * (cost + dislike[:, j])
                labels = with_blends(unary + own_cost[:, None], own, blends=turn > 0)
                shown[:, j] = solve(labels, self.grid, self.smoothness / cells)
                total = total + shown[:, j].sum(1)
            if turn == self.iterations - 2:
                dislike = same_images(shown.sum(2) > 0)
        return shown


class Labels(NamedTuple):
    """What a cell may show: one of m images, or a blend of two of the three that fill the most.

    Attributes
    ----------
    cost : (N, cells, m + 3)
        Cost of each label in each cell.
    change : (N, m + 3, m + 3)
        Cost of two labels side by side.
    images : (N, m + 3, m)
        Share of each image in each label.
    """

    cost: Tensor
    change: Tensor
    images: Tensor


def with_blends(unary: Tensor, own: Tensor, *, blends: bool) -> Labels:
    """Return the labels of one mixed image.

    Parameters
    ----------
    unary : (N, cells, m)
        Cost of each image in each cell.
    own : (N, m)
        Number of cells that each image fills now.
    blends
        Whether cells may blend two images that are used now.
    """
    number, _, size = unary.shape
    images = torch.eye(size, device=unary.device).expand(number, -1, -1)
    most = own.topk(min(3, size), 1)
    added = torch.zeros(number, len(PAIRS), size, device=unary.device)
    used = torch.zeros(number, len(PAIRS), dtype=torch.bool, device=unary.device)
    for i, (a, b) in enumerate(PAIRS):
        if b < most.indices.shape[1] and blends:
            added[:, i].scatter_(1, most.indices[:, [a, b]], 0.5)
            used[:, i] = (most.values[:, [a, b]] > 0).all(1)
    cost = unary @ added.mT - BONUS
    cost = torch.where(used[:, None], cost, torch.inf)
    images = torch.cat([images, added], 1)
    change = (1 - torch.eye(size + len(PAIRS), device=unary.device)).repeat(number, 1, 1)
    members = torch.where(added > 0, HALF, 1.0)
    change[:, size:, :size], change[:, :size, size:] = members, members.mT
    return Labels(torch.cat([unary, cost], 2), change, images)


def solve(labels: Labels, grid: int, smoothness: float) -> Tensor:
    """Return the share of each image in each cell, (N, cells, m), in a minimum of the energy."""
    number, _, kinds = labels.cost.shape
    chosen = labels.cost.argmin(2)
    places = torch.arange(grid, device=chosen.device)
    colour = ((places[:, None] + places) % 2).flatten()
    for sweep in range(2 * SWEEPS):
        shown = F.one_hot(chosen, kinds).float().view(number, grid, grid, kinds)
        padded = F.pad(shown, (0, 0, 1, 1, 1, 1))
        beside = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2]
        beside = (beside + padded[:, 1:-1, 2:]).flatten(1, 2)
        cost = labels.cost + smoothness * torch.einsum("ncl,nkl->nck", beside, labels.change)
        chosen = torch.where(colour == sweep % 2, cost.argmin(2), chosen)
    rows = torch.arange(number, device=chosen.device)[:, None]
    return labels.images[rows, chosen]


def same_images(used: Tensor) -> Tensor:
    """Return which image each mixed image is to show less, as another shows the same ones.

    Parameters
    ----------
    used : (N, m, m) bool
        Which images each mixed image shows.
    """
    dislike = torch.zeros(used.shape)
    for part, of_part in enumerate(used.tolist()):
        sets = [[i for i, is_used in enumerate(row) if is_used] for row in of_part]
        for (a, own), (b, other) in combinations(enumerate(sets), 2):
            if own == other and len(own) > 1:
                dislike[part, a, own[0]] = dislike[part, b, own[1]] = 1
    return dislike.to(used.device)


def most_salient(saliency: Tensor) -> Tensor:
    """Return row and column of the most salient window of each image, (B, 2) float32."""
    side = min(POOLED, *saliency.shape[1:])
    means = F.avg_pool2d(saliency[:, None], side, stride=1)[:, 0]
    width = means.shape[-1]
    peak = means.flatten(1).argmax(1)
    return torch.stack([peak // width, peak % width], 1).float()

"""PuzzleMix: choose the image that each block shows by saliency, and move hidden salient blocks.

Paper    Kim et al., Puzzle Mix: Exploiting Saliency and Local Statistics for Optimal Mixup,
         ICML 2020, arXiv:2009.06962, §3-4
Source   snu-mllab/PuzzleMix@e2dbf3a, mixup.py:70-335, main.py:333-381; settings of its README for
         CIFAR-100
Differs  in the minimization of the mask energy: the source runs graph cuts for each image with gco,
         a C++ extension; this file runs iterated conditional modes on the two colours of a
         checkerboard in turn, for the whole batch at once, from several starts, and takes the mask
         of lowest energy. In the transport: this file computes the optimal assignment; the source
         stops after a fixed number of iterations and leaves unassigned blocks black. In the data
         smoothness: pixel values are divided by the range of the batch, because a method does not
         know the normalization. Without adversarial noise and with `clean_lam` 0, as in the
         source's settings for CIFAR
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from mixbench.contract import Method, Sources, Step
from mixbench.declare import NonNegative, Positive
from mixbench.kernels import beta, cell_of_pixels, permutation

LABELS = (0.0, 0.5, 1.0)  # weight of the original image in a block
GRIDS = (2, 4, 8, 16)  # number of blocks along each axis
SWEEPS = 8
FINEST = 4  # smallest side, in pixels, of blocks that are moved or whose edges are compared


class PuzzleMix(Method):
    """Show in each block the more salient image, with a mean weight close to a sampled λ.

    Parameters
    ----------
    alpha
        Parameter α of λ ~ Beta(α, α), the expected weight of the original image.
    label_smoothness
        Cost β of neighbouring blocks that show different images, independent of the pixels.
    data_smoothness
        Cost γ of neighbouring blocks that show different images, multiplied by `label_smoothness`
        and by the change of the pixel values at their edge.
    prior
        Cost η of blocks whose labels deviate from λ.
    distance
        Cost of moving a block across the whole image, as a fraction of the saliency of the image.
    transport
        Whether the blocks of both images are moved so that salient blocks are visible.
    """

    version = 1

    def __init__(
        self,
        alpha: Positive = 1.0,
        label_smoothness: NonNegative = 1.2,
        data_smoothness: NonNegative = 0.5,
        prior: NonNegative = 0.2,
        distance: NonNegative = 0.8,
        *,
        transport: bool = True,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.label_smoothness = label_smoothness
        self.data_smoothness = data_smoothness
        self.prior = prior
        self.distance = distance
        self.transport = transport

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch; the weight of each image is the mean of its mask."""
        size = (x.shape[-2], x.shape[-1])
        grids = [grid for grid in GRIDS if grid <= min(size)] or [1]
        grid = grids[int(torch.randint(len(grids), (), generator=step.rng))]
        lam = float(beta(self.alpha, step.rng))
        partner = permutation(len(x), step.rng, x.device)
        saliency = step.saliency()
        mask = solve(self.energy(x, partner, _shares(saliency, grid), lam))
        own, other = x, x.index_select(0, partner)
        pieces = [n for n in GRIDS if n >= grid and size[0] % n == 0 == size[1] % n]
        if self.transport and pieces:
            fine = max((n for n in pieces if min(size) // n >= FINEST), default=pieces[0])
            shown, shares = _repeated(mask, fine), _shares(saliency, fine)
            own = _moved(own, shares, shown > 0, self.distance)
            other = _moved(other, shares.index_select(0, partner), shown < 1, self.distance)
        pixels = mask.flatten(1)[:, cell_of_pixels(size, grid, x.device)]
        mixed = other.lerp(own, pixels[:, None].to(x.dtype))
        return mixed, Sources.pair(partner, pixels.mean((1, 2)))

    def energy(self, x: Tensor, partner: Tensor, shares: Tensor, lam: float) -> "Energy":
        """Return the energy of masks: hidden saliency, deviation from λ and roughness of edges.

        Parameters
        ----------
        shares : (B, P, P)
            Fraction of the image's saliency in each block.
        """
        grid = shares.shape[-1]
        label = torch.tensor(LABELS, device=x.device)
        chance = torch.tensor([(1 - lam) ** 2, 2 * lam * (1 - lam), lam**2], device=x.device)
        prior = -self.prior / grid**2 * (chance + 1e-8).log()
        edge = self.label_smoothness / grid / 16
        per_change = edge * self.data_smoothness
        down = _edges(x, partner, grid) * per_change
        across = _edges(x.mT, partner, grid).mT * per_change
        # The part of an edge's cost that depends on one block only is added to the unary costs of
        # its two blocks; the rest is proportional to the squared difference of their labels.
        own, other = torch.zeros_like(shares), torch.zeros_like(shares)
        for costs, first, second in (
            (down, (..., slice(-1), slice(None)), (..., slice(1, None), slice(None))),
            (across, (..., slice(None), slice(-1)), (..., slice(None), slice(1, None))),
        ):
            own[first] += costs[1, 0] + costs[1, 1]
            other[first] += costs[0, 1] + costs[0, 0]
            own[second] += costs[0, 1] + costs[1, 1]
            other[second] += costs[1, 0] + costs[0, 0]
        own = shares.index_select(0, partner) + own / 2  # the original image hides the partner
        other = shares + other / 2
        unary = own[..., None] * label + other[..., None] * (1 - label) + prior
        return Energy(unary, edge + _excess(down), edge + _excess(across))


class Energy(NamedTuple):
    """Energy of the masks of a batch.

    Attributes
    ----------
    unary : (B, P, P, 3)
        Cost of each label in each block.
    down : (B, P - 1, P)
        Cost of a label difference of 1 between a block and the block below it.
    across : (B, P, P - 1)
        Cost of a label difference of 1 between a block and the block to its right.
    """

    unary: Tensor
    down: Tensor
    across: Tensor

    def of(self, label: Tensor) -> Tensor:
        """Return the energy of one mask per image, (B,), given by label indices, (B, P, P)."""
        mask = label / (len(LABELS) - 1)
        alone = self.unary.gather(-1, label[..., None]).sum((1, 2, 3))
        down = (self.down * mask.diff(dim=1).square()).sum((1, 2))
        return alone + down + (self.across * mask.diff(dim=2).square()).sum((1, 2))


def solve(energy: Energy) -> Tensor:
    """Return masks in a local minimum of the energy, (B, P, P), by iterated conditional modes.

    The best label of a block is known given its neighbours. Blocks of the same colour of a
    checkerboard are not neighbours, so all of them are updated at once. No change of a single block
    lowers the energy of the result.
    """
    shape = energy.unary.shape[:-1]
    places = torch.arange(shape[-1], device=energy.unary.device)
    colour = (places[:, None] + places) % 2
    starts = [torch.full(shape, i, device=energy.unary.device) for i in range(len(LABELS))]
    found = []
    for start in (energy.unary.argmin(-1), *starts):
        label = start
        for sweep in range(2 * SWEEPS):
            label = torch.where(colour == sweep % 2, _best(energy, label), label)
        found.append(label)
    costs = torch.stack([energy.of(label) for label in found])
    best = costs.argmin(0)[None, :, None, None].expand(1, *shape)
    return torch.stack(found).gather(0, best)[0] / (len(LABELS) - 1)


def _best(energy: Energy, label: Tensor) -> Tensor:
    """Return the index of the best label of each block, given all other blocks, (B, P, P)."""
    mask = label / (len(LABELS) - 1)
    pull, weight = torch.zeros_like(mask), torch.zeros_like(mask)
    for costs, axis in ((energy.down, 1), (energy.across, 2)):
        length = mask.shape[axis]
        first, second = mask.narrow(axis, 0, length - 1), mask.narrow(axis, 1, length - 1)
        pull.narrow(axis, 0, length - 1).add_(costs * second)
        pull.narrow(axis, 1, length - 1).add_(costs * first)
        weight.narrow(axis, 0, length - 1).add_(costs)
        weight.narrow(axis, 1, length - 1).add_(costs)
    own = torch.tensor(LABELS, device=mask.device)
    joint = own.square() * weight[..., None] - 2 * own * pull[..., None]
    return (energy.unary + joint).argmin(-1)


def _shares(saliency: Tensor, grid: int) -> Tensor:
    """Return the fraction of the image's saliency in each block, (B, P, P)."""
    blocks = F.adaptive_avg_pool2d(saliency[:, None], grid)[:, 0]
    return blocks / blocks.sum((1, 2), keepdim=True).clamp_min(1e-12)


def _edges(x: Tensor, partner: Tensor, grid: int) -> Tensor:
    """Return the mean pixel change between each block and the one below, (2, 2, B, P - 1, P).

    The first axis selects the image of the upper block, the second that of the lower block: 1 for
    the original image, 0 for the partner.
    """
    pieces = max(min(x.shape[-2:]) // grid // FINEST, 1)
    span = (x.amax() - x.amin()).float().clamp_min(1e-12)
    fine = F.adaptive_avg_pool2d(x.float() / span, grid * pieces)
    last, first = fine[:, :, pieces - 1 : -1 : pieces], fine[:, :, pieces::pieces]
    above = last.index_select(0, partner), last
    below = first.index_select(0, partner), first
    changes = [[(a - b).abs().mean(1).unflatten(-1, (grid, pieces)).mean(-1) for b in below]
               for a in above]  # fmt: skip
    return torch.stack([torch.stack(row) for row in changes])


def _excess(costs: Tensor) -> Tensor:
    """Return the extra cost of edges between two images over edges within one, (B, ...)."""
    return (costs[1, 0] + costs[0, 1] - costs[1, 1] - costs[0, 0]) / 2


def _repeated(mask: Tensor, grid: int) -> Tensor:
    """Return the mask upsampled to a finer grid of blocks, (B, grid, grid)."""
    times = grid // mask.shape[-1]
    return mask.repeat_interleave(times, 1).repeat_interleave(times, 2)


def _moved(x: Tensor, shares: Tensor, shown: Tensor, distance: float) -> Tensor:
    """Return images with their blocks moved to maximize visible saliency minus moving costs.

    Parameters
    ----------
    shares : (B, P, P)
        Fraction of the image's saliency in each block.
    shown : (B, P, P) bool
        Positions at which this image is visible.
    distance
        Cost of moving a block across the whole image.
    """
    grid = shares.shape[-1]
    places = torch.cartesian_prod(torch.arange(grid), torch.arange(grid)).double()
    travel = distance * torch.cdist(places, places).square() / max(grid - 1, 1) ** 2
    gains = shares.flatten(1).double().cpu()[:, :, None] * shown.flatten(1).double().cpu()[:, None]
    # The source block of every position. SciPy solves the assignment for one image at a time.
    origin = np.stack([linear_sum_assignment((travel - gain).T)[1] for gain in gains])
    height, width = x.shape[-2] // grid, x.shape[-1] // grid
    blocks = x.unflatten(-1, (grid, width)).unflatten(-3, (grid, height)).permute(0, 2, 4, 1, 3, 5)
    index = torch.from_numpy(origin).to(x.device)[:, :, None, None, None]
    flat = blocks.flatten(1, 2)
    filled = flat.gather(1, index.expand(flat.shape))
    whole: Tensor = filled.unflatten(1, (grid, grid)).permute(0, 3, 1, 4, 2, 5).reshape_as(x)
    return whole

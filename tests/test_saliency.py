"""Methods that look where an image is salient: maps, masks and moves, derived a second time."""

import itertools
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mixbench.contract import Step
from mixbench.contract.loading import load_method
from mixbench.registry.units import find
from mixbench.streams import generator
from mixbench.testing import Subject
from mixbench.train.mixing import mixed_step

PuzzleMix: Any = load_method(find("method", "puzzlemix"))
SaliencyMix: Any = load_method(find("method", "saliencymix"))
puzzle, salient = (sys.modules[unit.__module__] for unit in (PuzzleMix, SaliencyMix))


def step_of(method: Any, images: Tensor, seed: int, saliency: Tensor | None = None) -> Step:
    _, model, task = Subject(lambda: method).bound(images.shape[1])
    targets = torch.arange(len(images)) % 5
    step = Step(images, targets, rng=generator(seed, "mix"), task=task, model=model)
    if saliency is not None:
        step.saliency = lambda: saliency  # type: ignore[method-assign]
    return step


def fine_grained(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Montabone & Soto's map of one grey picture, pixel by pixel, on windows of a plain mean."""
    height, width = picture.shape
    padded = np.pad(picture, 1, mode="reflect")
    binomial = np.outer([1, 2, 1], [1, 2, 1]) / 16
    return np.array([[(padded[y : y + 3, x : x + 3] * binomial).sum() for x in range(width)]
                       for y in range(height)])  # fmt: skip


def test_saliencymix_sees_what_differs_from_its_surround() -> None:
    rng = np.random.default_rng(0)
    picture = rng.normal(size=(20, 26)).cumsum(0).cumsum(1)
    grey = fine_grained(fine_grained(picture))
    sums = {sign: np.zeros_like(grey) for sign in (1, -1)}
    for reach in (12, 24, 48, 28, 56, 112):
        for y, x in np.ndindex(*grey.shape):
            window = grey[
                max(y - reach + 1, 0) : y + reach + 1, max(x - reach + 1, 0) : x + reach + 1
            ]
            around = (window.sum() - grey[y, x]) / (window.size - 1)
            for sign, total in sums.items():
                total[y, x] += max(sign * (grey[y, x] - around), 0)
    expected = sum(total / total.max() for total in sums.values())

    found = salient.saliency(torch.from_numpy(picture).float()[None, None])[0]

    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("per_image", [True, False])
def test_saliencymix_pastes_around_the_partners_peak(*, per_image: bool) -> None:
    images = torch.zeros(4, 3, 24, 24)
    places = [(6, 6), (6, 17), (17, 6), (17, 17)]
    for image, (y, x) in zip(images, places, strict=True):
        image[:, y - 1 : y + 2, x - 1 : x + 2] = 1
    method = SaliencyMix(prob=1.0, per_image=per_image)
    checked = 0
    for seed in range(40):
        mixed, sources = method.mix(images, step_of(method, images, seed))
        for item in range(4):
            partner, weight = int(sources.index[item, 1]), float(sources.weight[item, 1])
            placed = partner if per_image else int(sources.index[0, 1])
            y, x = places[placed]
            if partner == item or weight < 0.1 or placed != partner:
                continue
            checked += 1
            assert bool((mixed[item][:, y - 1 : y + 2, x - 1 : x + 2] == 1).all())
    assert checked > 20


def energies(size: int, number: int = 40) -> Any:
    rng = generator(size, "synthetic")
    unary = torch.rand(number, size, size, 3, generator=rng)
    down = torch.rand(number, size - 1, size, generator=rng)
    across = torch.rand(number, size, size - 1, generator=rng)
    return puzzle.Energy(unary, down, across)


@pytest.mark.parametrize("size", [2, 3])
def test_puzzlemix_finds_nearly_the_lowest_energy_of_all_masks(size: int) -> None:
    energy = energies(size)
    masks = torch.tensor([*itertools.product(range(3), repeat=size * size)]).view(-1, size, size)
    every = torch.stack([
        energy_of(energy, item, masks.double() / 2) for item in range(len(energy.unary))
    ])  # fmt: skip
    lowest, mean = every.min(1).values, every.mean(1)

    found = puzzle.solve(energy)
    costs = torch.stack([
        energy_of(energy, item, found[item][None].double())[0] for item in range(len(found))
    ])  # fmt: skip

    above = (costs - lowest) / (mean - lowest)
    assert float(above.min()) >= -1e-6
    assert float((above < 1e-6).double().mean()) > 0.9
    assert float(above.max()) < 0.1


def energy_of(energy: Any, item: int, masks: Tensor) -> Tensor:
    """The cost of masks, (M, P, P) in {0, 1/2, 1}, edge by edge."""
    size = masks.shape[-1]
    total = torch.zeros(len(masks), dtype=torch.float64)
    for y, x in itertools.product(range(size), repeat=2):
        total += energy.unary[item, y, x].double()[(2 * masks[:, y, x]).long()]
        if y + 1 < size:
            gap = masks[:, y, x] - masks[:, y + 1, x]
            total += energy.down[item, y, x].double() * gap**2
        if x + 1 < size:
            gap = masks[:, y, x] - masks[:, y, x + 1]
            total += energy.across[item, y, x].double() * gap**2
    return total


def test_puzzlemix_counts_hidden_saliency_and_changes_of_pixels_at_edges() -> None:
    """Every mask of 0 and 1 costs what the paper's terms say, up to what is the same for all."""
    rng = generator(3, "synthetic")
    images = torch.rand(2, 3, 8, 8, generator=rng)
    span = float(images.max() - images.min())
    partner, lam = torch.tensor([1, 0]), 0.3
    shares = torch.rand(2, 2, 2, generator=rng)
    method = PuzzleMix(label_smoothness=1.2, data_smoothness=0.5, prior=0.2)
    energy = method.energy(images, partner, shares, lam)
    masks = torch.tensor([*itertools.product((0, 1), repeat=4)]).view(-1, 2, 2).double()
    found = energy_of(energy, 0, masks)

    weight = 1.2 / 2 / 16
    expected = []
    for mask in masks:
        cost = 0.0
        for y, x in itertools.product(range(2), repeat=2):
            own = float(mask[y, x])
            cost += float(shares[1 if own else 0, y, x])  # what the block does not show
            cost -= 0.2 / 4 * np.log((lam if own else 1 - lam) ** 2 + 1e-8)
        for (y, x), (v, u) in (
            ((0, 0), (1, 0)),
            ((0, 1), (1, 1)),
            ((0, 0), (0, 1)),
            ((1, 0), (1, 1)),
        ):
            first = images[0 if mask[y, x] else 1][:, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
            second = images[0 if mask[v, u] else 1][:, 4 * v : 4 * v + 4, 4 * u : 4 * u + 4]
            change = (first.mean((1, 2)) - second.mean((1, 2))).abs().mean() / span
            cost += weight * float(mask[y, x] != mask[v, u]) + weight * 0.5 * float(change)
        expected.append(cost)

    wanted = torch.tensor(expected, dtype=torch.float64)
    gaps = (found - found.mean()) - (wanted - wanted.mean())
    assert float(gaps.abs().max()) < 1e-5


def blocks(x: Tensor) -> Tensor:
    """The blocks of 4 x 4 pixels of images of 16 x 16, (B, 16, C * 16)."""
    cut = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5)
    return cut.reshape(len(x), 16, -1)


def test_puzzlemix_moves_whole_blocks_to_where_they_are_seen() -> None:
    rng = generator(4, "synthetic")
    images = torch.rand(5, 3, 16, 16, generator=rng)
    shares = torch.rand(5, 4, 4, generator=rng)
    shares /= shares.sum((1, 2), keepdim=True)
    shown = torch.zeros(5, 4, 4, dtype=torch.bool)
    shown[:, :2] = True

    moved = puzzle._moved(images, shares, shown, 1e-4)

    before, after = blocks(images), blocks(moved)
    gaps = (after[:, :, None] - before[:, None]).abs().amax(-1)
    origin = gaps.argmin(-1)
    assert float(gaps.amin(-1).max()) == 0  # each block is one of the image's, unchanged
    assert all(sorted(row.tolist()) == list(range(16)) for row in origin)  # and each is there once
    seen = shares.flatten(1).gather(1, origin[:, :8]).sum(1)
    best = shares.flatten(1).sort(descending=True).values[:, :8].sum(1)
    torch.testing.assert_close(seen, best)  # moving costs next to nothing: the most salient half
    still = puzzle._moved(images, shares, shown, 1e4)
    assert torch.equal(still, images)


def test_puzzlemix_shows_more_of_an_image_that_is_more_salient() -> None:
    images = torch.randn(8, 3, 16, 16, generator=generator(5, "synthetic"))
    left = torch.zeros(8, 16, 16)
    left[:4, :, :8] = 1  # four images are salient at the left,
    left[4:, :, 8:] = 1  # four at the right
    method = PuzzleMix(transport=False)
    halves = []
    for seed in range(60):
        step = step_of(method, images, seed, left + 0.01)
        mixed, sources = method.mix(images, step)
        pairs = [(i, int(sources.index[i, 1])) for i in range(8)]
        for i, j in pairs:
            if (i < 4) == (j < 4) or not 0.3 < float(sources.weight[i, 0]) < 0.7:
                continue
            own = slice(None, 8) if i < 4 else slice(8, None)
            halves.append(
                float(torch.isclose(mixed[i][:, :, own], images[i][:, :, own]).float().mean())
            )
    assert len(halves) > 50
    assert np.mean(halves) > 0.8


def test_looking_at_images_is_counted_as_passing_them_through_the_model() -> None:
    images = torch.randn(6, 3, 16, 12, generator=generator(0, "synthetic"))
    method = PuzzleMix()

    assert mixed_step(method, step_of(method, images, 0)).num_images == 12

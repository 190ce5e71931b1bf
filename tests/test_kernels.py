"""Kernels against plain loops, and the laws of the methods' draws against published figures."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mixbench.contract import Backbone, Method, Step
from mixbench.contract.loading import load_method
from mixbench.kernels import (
    Box,
    beta,
    blend,
    blend_rolled,
    box_masks,
    cell_areas,
    cell_edges,
    clipped_box,
    compose_grid,
    paste_box,
    paste_box_,
    rolled_index,
)
from mixbench.registry.units import find
from mixbench.streams import generator
from mixbench.testing import ToyTask

SIZE = st.tuples(st.integers(1, 17), st.integers(1, 17))


def images(number: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(number, 2, *size, generator=torch.Generator().manual_seed(seed))


def test_blend_is_the_formula(rng: torch.Generator) -> None:
    x, partner = images(5, (4, 6)), torch.randperm(5, generator=rng)

    torch.testing.assert_close(blend(x, partner, 0.3), 0.3 * x + 0.7 * x[partner])


@given(size=SIZE, number=st.integers(1, 6), data=st.data())
@settings(deadline=None)
def test_paste_box_takes_exactly_the_box(
    size: tuple[int, int], number: int, data: st.DataObject
) -> None:
    centre = tuple(data.draw(st.integers(0, n - 1)) for n in size)
    half = tuple(data.draw(st.integers(0, n)) for n in size)
    partner = torch.tensor(data.draw(st.permutations(range(number))))
    x = images(number, size)

    box = clipped_box((centre[0], centre[1]), (half[0], half[1]), size)
    mixed = paste_box(x, partner, box)

    for row in range(size[0]):
        for column in range(size[1]):
            inside = box.top <= row < box.bottom and box.left <= column < box.right
            source = x[partner] if inside else x
            assert torch.equal(mixed[..., row, column], source[..., row, column])


def test_a_box_is_clipped_at_every_edge() -> None:
    assert clipped_box((0, 9), (2, 3), (8, 12)) == Box(0, 2, 6, 12)
    assert clipped_box((7, 0), (2, 3), (8, 12)) == Box(5, 8, 0, 3)
    assert clipped_box((4, 4), (0, 5), (8, 12)).area == 0


@given(size=SIZE, grid=st.integers(1, 5), number=st.integers(1, 5), seed=st.integers(0, 99))
@settings(deadline=None)
def test_compose_grid_fills_every_pixel_from_its_cell(
    size: tuple[int, int], grid: int, number: int, seed: int
) -> None:
    x = images(number, size)
    index = torch.randint(number, (3, grid**2), generator=torch.Generator().manual_seed(seed))

    mixed = compose_grid(x, index, grid)

    for item in range(3):
        for row in range(size[0]):
            for column in range(size[1]):
                cell = row * grid // size[0] * grid + column * grid // size[1]
                source = x[index[item, cell], :, row, column]
                assert torch.equal(mixed[item, :, row, column], source)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("grid", [1, 2, 4, 5])
def test_what_is_only_moved_is_the_same_in_every_type(grid: int, dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(256, (6, 3, 9, 12), generator=rng).to(dtype)
    partner = torch.randperm(6, generator=rng)
    index = torch.randint(6, (4, grid**2), generator=rng)
    box = Box(2, 7, 3, 11)

    for in_bytes, wide in (
        (compose_grid(x, index, grid), compose_grid(x.float(), index, grid)),
        (paste_box(x, partner, box), paste_box(x.float(), partner, box)),
    ):
        assert in_bytes.dtype == dtype
        assert torch.equal(in_bytes.float(), wide)


@pytest.mark.parametrize(("dtype", "apart"), [(torch.bfloat16, 1.0), (torch.uint8, 0.5)])
def test_blends_round_narrow_types(dtype: torch.dtype, apart: float) -> None:
    rng = torch.Generator().manual_seed(0)
    x, partner = torch.randint(256, (6, 3, 9, 12), generator=rng), torch.randperm(6, generator=rng)

    for mixed, wide in (
        (blend(x.to(dtype), partner, 0.3), blend(x.float(), partner, 0.3)),
        (blend_rolled(x.to(dtype), 0.3), blend_rolled(x.float(), 0.3)),
    ):
        assert mixed.dtype == dtype
        assert float((mixed.float() - wide).abs().max()) <= apart


MANY, SIDE = 70_000, 180  # together more than 2^31 pixels


def numbered(dtype: torch.dtype) -> Tensor:
    """Return images whose pixels are all their index modulo 251, without memory of their own."""
    return (torch.arange(MANY) % 251).to(dtype).view(-1, 1, 1, 1).expand(-1, 1, SIDE, SIDE)


@pytest.mark.slow
def test_more_than_2_to_the_31_pixels_are_blended() -> None:
    x, partner = numbered(torch.bfloat16), torch.arange(MANY).roll(-7)
    for mixed, other in ((blend(x, partner, 0.5), 7), (blend_rolled(x, 0.5), -1)):
        for item in (0, 30_000, MANY - 1):
            own, theirs = float(item % 251), float((item + other) % MANY % 251)
            assert mixed[item].float().unique().tolist() == pytest.approx(
                [(own + theirs) / 2], abs=1
            )
        del mixed


@pytest.mark.slow
def test_more_than_2_to_the_31_pixels_are_pasted() -> None:
    x, partner, box = numbered(torch.uint8).clone(), torch.arange(MANY).roll(-7), Box(0, 90, 0, 180)

    paste_box_(x, partner, box)

    for item in (0, 30_000, MANY - 1):
        assert x[item, 0, 0].unique().tolist() == [(item + 7) % MANY % 251]
        assert x[item, 0, -1].unique().tolist() == [item % 251]


@pytest.mark.slow
def test_cells_are_taken_from_more_than_2_to_the_31_pixels() -> None:
    x = numbered(torch.uint8).contiguous()

    for item in (0, 30_000, MANY - 1):
        mixed = compose_grid(x, torch.full((1, 16), item), 4)
        assert mixed.unique().tolist() == [item % 251]


@pytest.mark.slow
def test_more_than_2_to_the_31_pixels_are_composed() -> None:
    few, index = numbered(torch.uint8)[:200].contiguous(), torch.arange(MANY)[:, None] % 200

    mixed = compose_grid(few, index.expand(-1, 16), 4)

    assert [int(mixed[i, 0, -1, -1]) for i in (0, 30_000, MANY - 1)] == [0, 0, (MANY - 1) % 200]


@pytest.mark.slow
def test_more_than_2_to_the_31_pixels_are_masked() -> None:
    centre = torch.arange(MANY) % SIDE

    masks = box_masks((centre, centre), (5, 5), (SIDE, SIDE))

    assert [int(masks[i].sum()) for i in (20, 30_000 + 20, MANY - 1)] == [
        100, 100, 100 if 5 <= (MANY - 1) % SIDE <= SIDE - 5 else int(masks[MANY - 1].sum())
    ]  # fmt: skip
    assert bool(masks[MANY - 20, (MANY - 20) % SIDE, (MANY - 20) % SIDE])


def test_a_rolled_blend_is_the_blend_with_what_comes_before() -> None:
    x = images(5, (4, 6))

    mixed = blend_rolled(x, 0.3)

    assert torch.equal(mixed, blend(x, rolled_index(5, x.device), 0.3))
    torch.testing.assert_close(mixed, 0.3 * x + 0.7 * x.roll(1, 0))


def test_a_box_pasted_in_place_is_the_same() -> None:
    x, partner, box = images(5, (8, 12)), torch.tensor([3, 4, 0, 1, 2]), Box(2, 7, 3, 11)
    expected = paste_box(x, partner, box)

    assert paste_box_(x, partner, box) is x
    assert torch.equal(x, expected)


@given(length=st.integers(1, 300), grid=st.integers(1, 20))
def test_cells_cover_an_axis_once(length: int, grid: int) -> None:
    edges = cell_edges(length, grid)

    assert edges[0] == 0
    assert edges[-1] == length
    cells = [cell for cell, (a, b) in enumerate(pairwise(edges)) for _ in range(a, b)]
    assert cells == [y * grid // length for y in range(length)]


@given(size=SIZE, grid=st.integers(1, 5))
def test_cell_areas_are_shares(size: tuple[int, int], grid: int) -> None:
    assert float(cell_areas(size, grid).sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_beta_has_the_moments_of_its_law(alpha: float, rng: torch.Generator) -> None:
    drawn = beta(alpha, rng, 200_000)

    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(drawn.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.02)


def test_beta_of_a_tiny_alpha_is_a_coin(rng: torch.Generator) -> None:
    drawn = beta(1e-4, rng, 10_000)

    assert bool(drawn.isfinite().all())
    assert float(drawn.round().mean()) == pytest.approx(0.5, abs=0.03)


def own_shares(method: Method, size: int, draws: int) -> Tensor:
    """Return the share of the own image in many mixes of square images."""
    x, task = torch.zeros(2, 1, size, size), ToyTask()
    model = Backbone()
    shares = []
    for seed in range(draws):
        step = Step(x, torch.arange(2), rng=generator(seed, "mix"), task=task, model=model)
        shares.append(float(method.mix(x, step)[1].weight[0, 0]))
    return torch.tensor(shares)


@pytest.mark.full
def test_cutmix_has_the_published_law() -> None:
    """At 32 pixels and α = 1 the clipped box leaves 0.701 on average, deviation 0.183."""
    shares = own_shares(load_method(find("method", "cutmix"))(), 32, 20_000)

    assert float(shares.mean()) == pytest.approx(0.701, abs=0.005)
    assert float(shares.std()) == pytest.approx(0.183, abs=0.005)


@pytest.mark.parametrize(
    ("deviation_px", "mean", "deviation"),
    [
        pytest.param(4, 0.752, 0.010, marks=pytest.mark.full),
        (8, 0.786, 0.046),
        pytest.param(16, 0.848, 0.059, marks=pytest.mark.full),
    ],
)
def test_cutmix_16_has_its_law(deviation_px: int, mean: float, deviation: float) -> None:
    """A box of 16 in 32 pixels around a clamped normal centre, computed independently."""
    unit = load_method(find("method", "cutmix_16"))

    shares = own_shares(unit(deviation_frac=deviation_px / 32), 32, 20_000)

    assert float(shares.mean()) == pytest.approx(mean, abs=0.003)
    assert float(shares.std()) == pytest.approx(deviation, abs=0.003)


@pytest.mark.parametrize(("cells", "deviation"), [("bernoulli", 0.125), ("beta", 0.307)])
def test_random_patchmix_has_its_law(cells: str, deviation: float) -> None:
    """The share of 16 fair cells has deviation 1/8; with λ ~ Beta(1, 1) first, 0.307."""
    unit = load_method(find("method", "random_patchmix"))
    x, task = torch.zeros(1, 1, 8, 8), ToyTask()
    two = x.expand(50, -1, -1, -1)
    shares = []
    for seed in range(4000):
        step = Step(two, torch.arange(50), rng=generator(seed, "mix"), task=task, model=Backbone())
        index, weight, _ = unit(cells=cells).mix(two, step)[1]
        # An item that is its own partner says nothing about the mask; some item is not.
        own = (weight * (index == torch.arange(50)[:, None])).sum(1)
        shares.append(float(own.min()))

    assert float(torch.tensor(shares).mean()) == pytest.approx(0.5, abs=0.02)
    assert float(torch.tensor(shares).std()) == pytest.approx(deviation, abs=0.01)

"""What is particular to one method: its formulas, derived here a second time."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from timm.data.mixup import Mixup as TimmMixup
from torch.nn import functional as F
from torchvision.transforms.v2.functional import resize

from mixbench.contract import Backbone, Method, Output, Sources, Step, mixed_loss
from mixbench.contract.loading import load_method
from mixbench.errors import BadParameter, InvalidUnit, UsageError
from mixbench.registry.units import find
from mixbench.streams import generator
from mixbench.testing import Subject, ToyTask
from mixbench.train.mixing import mixed_step

PatchMix = load_method(find("method", "random_patchmix"))


def step_for(method: Method, images: torch.Tensor, seed: int = 0) -> tuple[Step, Method]:
    bound, model, task = Subject(lambda: method).bound()
    targets = torch.arange(len(images)) % 5
    return Step(images, targets, rng=generator(seed, "mix"), task=task, model=model), bound


def step_of(images: torch.Tensor, seed: int = 0) -> Step:
    """Return a step for a method whose mixing needs no model."""
    targets = torch.arange(len(images)) % 5
    return Step(images, targets, rng=generator(seed, "mix"), task=ToyTask(), model=Backbone())


@pytest.mark.parametrize("image_loss", [True, False])
@pytest.mark.parametrize("patch_loss", [True, False])
@pytest.mark.parametrize("head", ["shared", "per_cell", "tied"])
def test_patchmix_loss_is_equation_5(*, image_loss: bool, patch_loss: bool, head: str) -> None:
    if not (image_loss or patch_loss):
        with pytest.raises(BadParameter):
            PatchMix(image_loss=False, patch_loss=False)
        return
    step, method = step_for(
        PatchMix(grid=2, image_loss=image_loss, patch_loss=patch_loss, head=head),
        torch.randn(6, 3, 16, 12, generator=generator(1, "synthetic")),
    )
    mixed, sources = method.mix(step.images, step)
    output = step.model(mixed)

    one_hot = F.one_hot(step.targets, 5).float()
    soft = (one_hot[sources.index] * sources.weight[..., None]).sum(1)
    image = -(soft * output.out.log_softmax(1)).sum(1).mean()
    pooled = F.adaptive_avg_pool2d(output.features, 2).flatten(2).transpose(1, 2)
    heads: dict[str, Callable[[int], torch.nn.Module]] = {
        "shared": lambda _: method.get_submodule("heads.0"),
        "per_cell": lambda cell: method.get_submodule(f"heads.{cell}"),
        "tied": lambda _: step.model.get_submodule("classifier"),
    }
    patch = torch.zeros(())
    for cell in range(4) if patch_loss else ():
        logits = heads[head](cell)(pooled[:, cell])
        patch = patch + F.cross_entropy(logits, step.targets[sources.index[:, cell]]) / 4

    expected = (image + patch) / 2 if image_loss and patch_loss else image * image_loss + patch
    torch.testing.assert_close(method.loss(output, sources, step), expected)


def test_without_an_image_loss_patches_vote() -> None:
    step, method = step_for(PatchMix(image_loss=False), torch.randn(4, 3, 16, 16))
    output = step.model(step.images)

    pooled = F.adaptive_avg_pool2d(output.features, 4).flatten(2).transpose(1, 2)
    mean = method.get_submodule("heads.0")(pooled).softmax(-1).mean(1)

    torch.testing.assert_close(method.predict(output).exp(), mean)


def test_patchmix_head_overhead_is_as_counted() -> None:
    """One shared linear head: (dim + 1) x classes; P² of them for per_cell; none for tied."""
    sizes = {}
    for head in ("shared", "per_cell", "tied"):
        method, _, _ = Subject(partial(PatchMix, head=head)).bound()
        sizes[head] = sum(p.numel() for p in method.parameters())

    assert sizes == {"shared": 65 * 5, "per_cell": 16 * 65 * 5, "tied": 0}


def test_a_grid_larger_than_the_image_is_refused() -> None:
    with pytest.raises(BadParameter, match="shorter side; images are 16 x 12 pixels"):
        PatchMix(grid=13).check(ToyTask(), None)


def test_manifold_mixup_visits_every_site_evenly() -> None:
    unit = load_method(find("method", "manifold_mixup"))
    counts: dict[str, int] = {}

    class Spy(unit):  # type: ignore[misc,valid-type]
        def mix(self, x: torch.Tensor, step: Step) -> tuple[torch.Tensor, Sources]:
            counts[step.site] = counts.get(step.site, 0) + 1
            assert x.shape[1] == {"input": 3, "block1": 16, "block2": 32}[step.site]
            return super().mix(x, step)  # type: ignore[no-any-return]

    for seed in range(120):
        step, method = step_for(Spy(), torch.randn(3, 3, 8, 12), seed)
        mixed_step(method, step)
        assert not any(m._forward_hooks for m in step.model.modules())

    assert set(counts) == {"input", "block1", "block2"}
    assert min(counts.values()) > 24


def test_an_unknown_site_is_named() -> None:
    class Deep(PatchMix):  # type: ignore[misc,valid-type]
        sites = ("block9",)

    step, method = step_for(Deep(), torch.randn(4, 3, 16, 16))

    with pytest.raises(InvalidUnit, match=r"mixes at 'block9'.* input, block1, block2, block3"):
        mixed_step(method, step)


def test_mixed_loss_is_the_loss_of_the_mixed_label() -> None:
    """For cross-entropy: loss mixing and label mixing agree."""
    out = torch.randn(6, 5, generator=generator(0, "synthetic"))
    targets, lam = torch.arange(6) % 5, torch.rand(6, generator=generator(1, "synthetic"))
    sources = Sources.pair(torch.tensor([1, 2, 3, 4, 5, 0]), lam)
    soft = (F.one_hot(targets, 5)[sources.index] * sources.weight[..., None]).sum(1)

    mixed = mixed_loss(ToyTask().loss, out, sources, targets)

    torch.testing.assert_close(mixed, F.cross_entropy(out, soft))


def test_drawn_items_have_the_asked_classes() -> None:
    task = ToyTask()
    split = task.load("train", Path(), 0)
    model = Backbone()
    step = Step(
        split.read(torch.arange(4), None),
        split.targets[:4],
        rng=generator(0, "mix"),
        task=task,
        model=model,
        split=split,
    )

    positions = step.draw(torch.tensor([3, 3, 0]))

    assert positions.tolist() == [4, 5, 6]
    assert step.targets[positions].tolist() == [3, 3, 0]
    assert len(step.images) == 7


@pytest.mark.parametrize("asks", ["saliency", "predict"])
def test_what_a_method_asks_of_the_model_has_no_side_effects(asks: str) -> None:
    step, _ = step_for(PatchMix(), torch.randn(4, 3, 16, 12))
    step.model.train()
    frozen: Any = next(m for m in step.model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    frozen.eval()
    before = {k: v.clone() for k, v in step.model.state_dict().items()}

    found = getattr(step, asks)()

    assert (found if asks == "saliency" else found.out).shape[0] == 4
    assert step.num_saliency_images == 4
    assert step.model.training
    assert not frozen.training
    assert all(p.grad is None for p in step.model.parameters())
    assert all(torch.equal(before[k], v) for k, v in step.model.state_dict().items())
    if asks == "saliency":
        assert found.shape == (4, 16, 12)
    else:
        assert not found.out.requires_grad


def test_cutout_blacks_out_the_share_that_its_clipped_squares_cover() -> None:
    """Counted here at every place that a square's centre may have, on one axis and the other."""
    height, width, half = 12, 20, 3
    covered = [
        sum(min(c + half, length) - max(c - half, 0) for c in range(length)) / length / length
        for length in (height, width)
    ]
    method = load_method(find("method", "cutout"))(side_frac=0.5)
    step = step_of(torch.ones(20_000, 1, height, width))

    mixed, sources = method.mix(step.images, step)

    assert float((mixed == 0).float().mean()) == pytest.approx(covered[0] * covered[1], rel=0.01)
    assert sources.index.shape == (20_000, 1)
    places = {tuple(image.flatten().tolist()) for image in mixed[:200]}
    assert len(places) > 100  # each image has a place of its own


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_transmix_weighs_by_the_attention_to_the_box(share: float) -> None:
    """The formula of the source, for each image by itself, with an attention that is made up."""
    method: Any = load_method(find("method", "transmix"))(share=share)
    step = step_of(torch.randn(6, 3, 16, 24, generator=generator(1, "synthetic")), seed=5)
    mixed, sources = method.mix(step.images.clone(), step)
    attention = torch.rand(6, 4, 6, generator=generator(2, "synthetic"), requires_grad=True)
    logits = torch.randn(6, 5, generator=generator(3, "synthetic"), requires_grad=True)

    loss = method.loss(Output(logits, torch.empty(0), attention), sources, step)

    changed = (mixed != step.images).any(1)[(mixed != step.images).flatten(1).any(1)][0]
    assert 0 < int(changed.sum()) < 16 * 24
    terms = []
    for item, (own, other) in enumerate(sources.index.tolist()):
        seen = attention[item].detach()
        inside = sum(float(seen[r, c]) for r in range(4) for c in range(6)
                     if changed[4 * r, 4 * c])  # fmt: skip
        area = float(changed.float().mean())
        weight = (1 - share) * area + share * inside / float(seen.sum())
        costs = -logits[item].log_softmax(0)
        terms.append((1 - weight) * costs[step.targets[own]] + weight * costs[step.targets[other]])
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)
    loss.backward()
    assert attention.grad is None


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_label_smoothing_is_torchs(smoothing: float) -> None:
    method = load_method(find("method", "label_smoothing"))(smoothing=smoothing)
    step, bound = step_for(method, torch.randn(6, 3, 16, 12, generator=generator(1, "synthetic")))
    mixed, sources = bound.mix(step.images, step)
    output = step.model(mixed)

    loss = bound.loss(output, sources, step)

    expected = F.cross_entropy(output.out, step.targets, label_smoothing=smoothing)
    assert mixed is step.images
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    with pytest.raises(UsageError, match="one class per image"):
        bound.check(ManyLabels(), None)


class ManyLabels(ToyTask):
    """A task without single classes."""

    num_classes = 0


def test_hide_and_seek_has_one_size_if_it_is_set() -> None:
    method = load_method(find("method", "hide_and_seek"))(hide_prob=0.66, side_frac=0.25)
    step = step_of(torch.ones(400, 1, 16, 24))

    hidden = method.mix(step.images, step)[0][:, 0] == 0

    squares = hidden.unflatten(1, (4, 4)).unflatten(3, (6, 4)).transpose(2, 3).flatten(3)
    assert torch.equal(squares.all(3), squares.any(3))
    assert float(squares.all(3).float().mean()) == pytest.approx(0.66, abs=0.02)


def test_adl_hides_the_strongest_places_or_weights_all() -> None:
    """By loops over the places of each image, for maps and for tokens."""
    adl = load_method(find("method", "adl"))
    rng = generator(3, "synthetic")
    x = torch.randn(5, 7, 3, 4, generator=rng) + 0.5
    step = step_of(torch.ones(5, 1, 8, 8))
    hidden, sources = adl(drop_prob=1.0, threshold=0.5).mix(x, step)
    weighted, _ = adl(drop_prob=0.0).mix(x.flatten(2).mT, step)

    assert sources.index.flatten().tolist() == [0, 1, 2, 3, 4]
    for image, changed, tokens in zip(x.flatten(2), hidden.flatten(2), weighted, strict=True):
        means = [float(place.mean()) for place in image.T]
        for place, mean in enumerate(means):
            kept = mean < 0.5 * max(means)
            assert torch.equal(changed[:, place], image[:, place] * kept)
            share = 1 / (1 + math.exp(-mean))
            torch.testing.assert_close(tokens[place], image[:, place] * share)


def test_hide_and_seek_hides_whole_squares_of_five_sizes() -> None:
    """Of the source's five sizes at 224 pixels, one hides nothing; half of the squares are."""
    method = load_method(find("method", "hide_and_seek"))()
    step = step_of(torch.ones(600, 1, 112, 168))

    mixed, sources = method.mix(step.images, step)

    hidden = mixed[:, 0] == 0
    found = []
    for image in hidden:
        fits = [  # every square is of one value; the finest sides do not divide the coarser ones
            side
            for side in (8, 16, 22, 28)
            if all(
                len(square.unique()) == 1
                for rows in image.split(side)
                for square in rows.split(side, 1)
            )
        ]
        found.append(0 if not image.any() else max(fits))
    counts = [found.count(side) for side in (0, 8, 16, 22, 28)]
    assert sum(counts) == 600
    assert stats.chisquare(counts).pvalue > 0.01
    assert float(hidden.float().mean()) == pytest.approx(0.8 * 0.5, abs=0.02)
    assert sources.weight.eq(1).all()


def test_random_erasing_draws_the_boxes_of_its_algorithm() -> None:
    """Against a loop as Algorithm 1 of the paper is written, by the boxes' areas and heights."""
    method = load_method(find("method", "random_erasing"))()
    step = step_of(torch.ones(4000, 1, 40, 60))
    rng = np.random.default_rng(0)
    areas: list[float] = []
    heights: list[int] = []
    while len(areas) < 2000:
        area, ratio = rng.uniform(0.02, 0.4) * 40 * 60, rng.uniform(0.3, 1 / 0.3)
        rows, columns = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if rows < 40 and columns < 60:
            areas.append(rows * columns)
            heights.append(rows)

    mixed, _ = method.mix(step.images, step)

    gone = (mixed[:, 0] == 0).float()
    erased = gone.flatten(1).any(1)
    boxes = gone[erased]
    down, across = boxes.amax(2).sum(1), boxes.amax(1).sum(1)
    assert torch.equal(down * across, boxes.sum((1, 2)))  # they are boxes
    assert float(erased.float().mean()) == pytest.approx(0.5, abs=0.03)
    assert stats.ks_2samp((down * across).numpy(), areas).pvalue > 0.01
    assert stats.ks_2samp(down.numpy(), heights).pvalue > 0.01
    corners = boxes.amax(2).argmax(1) / (40 - down + 1)
    assert float(corners.mean()) == pytest.approx(0.5, abs=0.06)


def test_random_erasing_fills_with_noise_where_it_erases() -> None:
    noisy = load_method(find("method", "random_erasing"))(prob=1.0, fill="noise")
    step = step_of(torch.full((50, 3, 20, 20), 7.0))

    mixed, _ = noisy.mix(step.images, step)

    values = mixed[mixed != 7]
    assert float(values.mean()) == pytest.approx(0, abs=0.05)
    assert float(values.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("rotate", [0.0, 360.0])
def test_gridmask_removes_the_squares_between_its_stripes(rotate: float) -> None:
    """Of a period d, squares of d - l are removed: a share of ((d - l) / d)², at any angle."""
    method = load_method(find("method", "gridmask"))(prob=1.0, rotate=rotate, keep=0.6)
    step = step_of(torch.ones(3000, 1, 64, 64))
    periods = np.arange(round(0.43 * 64), 64)
    stripes = np.floor(0.6 * periods + 0.5)

    mixed, _ = method.mix(step.images, step)

    gone = (mixed[:, 0] == 0).float()
    expected = (((periods - stripes) / periods) ** 2).mean()
    assert float(gone.mean()) == pytest.approx(expected, rel=0.04)
    assert float(gone.mean(0).std()) < 0.03  # no place is preferred
    if not rotate:
        rows, columns = gone.amax(2), gone.amax(1)
        assert torch.equal(gone, rows[:, :, None] * columns[:, None])


def test_ranges_of_sizes_are_in_order() -> None:
    for name in ("gridmask", "random_erasing"):
        with pytest.raises(BadParameter, match="smallest must be at most largest"):
            load_method(find("method", name))(smallest=0.5, largest=0.1)


def test_fmix_keeps_a_share_that_is_uniform_and_says_it_to_the_pixel() -> None:
    method = load_method(find("method", "fmix"))(alpha=1.0)
    shares = []
    for seed in range(400):
        step = step_of(torch.eye(4)[:, :, None, None].expand(4, 4, 16, 12), seed)
        mixed, sources = method.mix(step.images, step)
        own = float(sources.weight[0, 0])
        first = int(sources.index[0, 1])
        expected = own + (1 - own) * (first == 0)
        assert float(mixed[0, 0].mean()) == pytest.approx(expected, abs=1e-6)
        assert {0.0, 1.0} >= set(mixed.unique().tolist())
        shares.append(own)

    assert stats.kstest(shares, "uniform").pvalue > 0.01


@pytest.mark.parametrize("decay", [1.0, 3.0])
def test_fmix_draws_from_the_spectrum_of_the_paper(decay: float) -> None:
    """Its noise has amplitudes of 1 / f^decay: doubling f divides the power by 4^decay."""
    method: Any = load_method(find("method", "fmix"))(decay=decay)
    rng = generator(0, "mix")
    drawn = torch.stack([method.landscape(32, 32, rng) for _ in range(2000)])

    power = torch.fft.rfft2(drawn).abs().square().mean(0)

    along, across = power[[2, 4], 0], power[0, [2, 4]]
    assert float(across[0] / across[1]) == pytest.approx(4**decay, rel=0.15)
    assert float(along[0] / along[1]) == pytest.approx(4**decay, rel=0.15)
    assert float(power[3, 4] / power[0, 5]) == pytest.approx(1, rel=0.15)  # f is the same


def test_resizemix_pastes_the_whole_partner_within_the_image() -> None:
    """The pasted part is torchvision's antialiased resize; its side is uniform in [0.1, 0.8]."""
    method = load_method(find("method", "resizemix"))()
    images = torch.randn(3, 3, 50, 40, generator=generator(2, "synthetic"))
    sides, free = [], []
    for seed in range(400):
        step = step_of(images, seed)
        mixed, sources = method.mix(images, step)
        others = (sources.index[:, 1] != torch.arange(3)).nonzero()
        if not len(others):  # every image met itself
            continue
        item = int(others[0])
        changed = (mixed[item] != images[item]).any(0)
        rows, columns = changed.any(1).nonzero()[:, 0], changed.any(0).nonzero()[:, 0]
        height, width = len(rows), len(columns)
        assert int(changed.sum()) == height * width  # a rectangle, all of it
        assert float(sources.weight[item, 1]) == pytest.approx(height * width / 2000, abs=1e-6)
        other = images[int(sources.index[item, 1])]
        expected = resize(other, [height, width], antialias=True)
        pasted = mixed[item][:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        torch.testing.assert_close(pasted, expected, rtol=1e-4, atol=1e-4)
        sides.append(height / 50)
        free.append((int(rows[0]) + 0.5) / (50 - height + 1))

    assert stats.kstest(sides, stats.uniform(0.1, 0.7).cdf).statistic < 0.08
    assert stats.kstest(free, "uniform").statistic < 0.08


def test_smoothmix_blends_through_a_gaussian_of_height_1() -> None:
    method = load_method(find("method", "smoothmix"))()
    widths = []
    for seed in range(300):
        step = step_of(torch.eye(2)[:, :, None, None].expand(2, 2, 24, 30), seed)
        mixed, sources = method.mix(step.images, step)
        if int(sources.index[0, 1]) == 0:
            continue
        window = mixed[0, 1].double()
        peak = (window == 1).nonzero()
        assert len(peak) == 1
        y, x = (torch.arange(n) - int(p) for n, p in zip((24, 30), peak[0], strict=True))
        squared = (y[:, None] ** 2 + x**2).double()
        far = squared > 0
        sigma = (squared[far] / (-2 * window[far].log())).sqrt()
        assert float(sigma.max() - sigma.min()) < 1e-3
        assert float(sources.weight[0, 1]) == pytest.approx(float(window.mean()), abs=1e-6)
        widths.append(float(sigma.mean()) / 24)

    assert stats.kstest(widths, stats.uniform(0.25, 0.25).cdf).pvalue > 0.01


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_gridmix_adds_the_local_loss_to_the_global_one(weight: float) -> None:
    step, method = step_for(
        load_method(find("method", "patchmix_local_loss"))(grid=2, local_weight=weight),
        torch.randn(6, 3, 16, 12, generator=generator(1, "synthetic")),
    )
    mixed, sources = method.mix(step.images, step)
    output = step.model(mixed)

    one_hot = F.one_hot(step.targets, 5).float()
    soft = (one_hot[sources.index] * sources.weight[..., None]).sum(1)
    whole = F.cross_entropy(output.out, soft)
    head = method.get_submodule("heads.0")
    cells = F.adaptive_avg_pool2d(output.features, 2).permute(0, 2, 3, 1).reshape(24, -1)
    local = F.cross_entropy(head(cells), step.targets[sources.index].flatten())

    torch.testing.assert_close(method.loss(output, sources, step), whole + weight * local)


def test_cutmix_patch_gives_a_patch_the_labels_of_what_is_in_it() -> None:
    """Counted here pixel by pixel: image i is 1 in channel i alone, so cells' means are shares."""
    method: Any = load_method(find("method", "cutmix_patch"))(grid=2)
    images = torch.eye(5)[:, :, None, None].expand(5, 5, 16, 12)
    step, _ = step_for(method, images)
    mixed, sources = method.mix(images, step)
    output = Output(torch.zeros(5, 5), torch.randn(5, 64, 8, 6, generator=step.rng))

    loss = method.mean_patch_loss(output, sources, step)

    logits = method.heads[0](F.adaptive_avg_pool2d(output.features, 2).flatten(2).mT)
    shares = F.avg_pool2d(mixed, (8, 6)).flatten(2).mT  # of image i, whose class is i
    expected = -(shares * logits.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(loss, expected)


def test_gridmix_fills_any_number_of_cells_equally_often() -> None:
    """Cells kept with a probability that is uniform itself: 0..16 of them, each as likely."""
    method: Any = load_method(find("method", "patchmix_local_loss"))()
    rng = generator(0, "mix")

    counts = torch.bincount(torch.stack([method.random_cells(rng).sum() for _ in range(3400)]))

    assert stats.chisquare(counts.numpy()).pvalue > 0.01


def patchup(images: torch.Tensor, seed: int, **options: Any) -> tuple[torch.Tensor, Sources]:
    method = load_method(find("method", "patchup"))(**options)
    step = step_of(torch.zeros(len(images), 3, 16, 12), seed)
    step.site = "block1"
    return method.mix(images, step)


def test_patchup_alters_blocks_and_weighs_what_it_altered() -> None:
    """On a map whose own values are 1 and whose partner's are 0, what is seen is what is left."""
    for seed in range(20):
        images = torch.tensor([1.0, 0.0])[:, None, None, None].expand(2, 64, 16, 16)
        hard, sources = patchup(images, seed, mode="hard", gamma=0.5)
        if int(sources.index[0, 1]) == 1:
            assert float(sources.weight[0, 0]) == pytest.approx(float(hard[0].mean()), abs=1e-5)
            altered = (hard[0] == 0).float()
            shrunk = 1 - F.max_pool2d(1 - altered[None], 7, 1)[0]  # where whole blocks fit
            corners = F.max_pool2d(F.pad(shrunk[None], (6, 6, 6, 6)), 7, 1)[0]
            inner = altered[:, 6:-6, 6:-6] - corners[:, 6:-6, 6:-6]
            assert float(inner.abs().max()) == 0  # altered is a union of blocks of 7 x 7
        soft, sources = patchup(images, seed, mode="soft")
        if int(sources.index[0, 1]) == 1:
            assert float(sources.weight[0, 0]) == pytest.approx(float(soft[0].mean()), abs=1e-5)
            assert len(soft[0].unique()) == 2  # untouched, and blended by one λ


def test_patchup_draws_centres_at_the_rate_of_the_source() -> None:
    """Its γ · W² / (b² (W - b + 1)²), counted by blocks of one place."""
    method: Any = load_method(find("method", "patchup"))(gamma=0.3, block=1)
    single = method.blocks(torch.Size((400, 16, 16)), generator(0, "mix"))
    assert float(single.float().mean()) == pytest.approx(0.3, abs=0.005)

    method = load_method(find("method", "patchup"))(gamma=0.75, block=7)
    rate = 0.75 * 16**2 / (7**2 * 10**2)
    middle = method.blocks(torch.Size((4000, 16, 16)), generator(0, "mix"))[:, 8, 8]
    assert float(middle.float().mean()) == pytest.approx(1 - (1 - rate) ** 49, abs=0.02)


def test_the_three_terms_of_patchups_source_are_twice_the_loss_here() -> None:
    logits = torch.randn(4, 5, generator=generator(0, "synthetic"))
    own, other = F.one_hot(torch.tensor([0, 1, 2, 3]), 5), F.one_hot(torch.tensor([4, 2, 2, 0]), 5)
    for kept, lam in ((0.6, 0.3), (0.25, 0.0)):
        second = lam * own + (1 - lam) * other
        mixed = kept * own + (1 - kept) * second
        terms = kept * F.cross_entropy(logits, own.float())
        terms += (1 - kept) * F.cross_entropy(logits, second) + F.cross_entropy(logits, mixed)
        torch.testing.assert_close(terms, 2 * F.cross_entropy(logits, mixed))


def test_one_of_switches_as_timm_does() -> None:
    """The same shares of Mixup and CutMix, λ of the same laws, as timm with DeiT's settings."""
    method = load_method(find("method", "one_of"))()
    settings = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "label_smoothing": 0.0}
    theirs: Any = partial(TimmMixup, **settings)(num_classes=4)
    np.random.seed(0)  # noqa: NPY002  # timm draws from it
    images = torch.eye(4)[:, :, None, None].expand(4, 4, 16, 16)
    ours: dict[bool, list[float]] = {True: [], False: []}
    others: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(1500):
        step = step_of(images, seed)
        mixed, sources = method.mix(images, step)
        if bool((sources.index[:, 1] != sources.index[:, 0]).all()):
            pasted = bool(((mixed == 0) | (mixed == 1)).all())
            ours[pasted].append(float(sources.weight[0, 0]))
        mixed, soft = theirs(images.clone(), torch.arange(4))
        pasted = bool(((mixed == 0) | (mixed == 1)).all())
        others[pasted].append(float(soft[0, 0]))

    share, expected = (len(d[True]) / (len(d[True]) + len(d[False])) for d in (ours, others))
    assert share == pytest.approx(expected, abs=0.07)
    for pasted in (True, False):
        assert stats.ks_2samp(ours[pasted], others[pasted]).pvalue > 0.01

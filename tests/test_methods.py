"""What is particular to one method: its formulas, derived here a second time."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from mixbench.contract import Method, Sources, Step, mixed_loss
from mixbench.errors import BadParameter, InvalidUnit
from mixbench.registry.units import find, load_method
from mixbench.stages.mixing import mixed_step
from mixbench.streams import generator
from mixbench.testing import Subject, ToyTask

PatchMix = load_method(find("method", "random_patchmix"))


def step_for(method: Method, images: torch.Tensor, seed: int = 0) -> tuple[Step, Method]:
    bound, model, task = Subject(lambda: method).bound()
    targets = torch.arange(len(images)) % 5
    return Step(images, targets, rng=generator(seed, "mix"), task=task, model=model), bound


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
    model = torch.nn.Identity()
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


def test_saliency_has_no_side_effects() -> None:
    step, _ = step_for(PatchMix(), torch.randn(4, 3, 16, 12))
    step.model.train()
    before = {k: v.clone() for k, v in step.model.state_dict().items()}

    saliency = step.saliency()

    assert saliency.shape == (4, 16, 12)
    assert step.model.training
    assert all(p.grad is None for p in step.model.parameters())
    assert all(torch.equal(before[k], v) for k, v in step.model.state_dict().items())


def test_cutout_blacks_out_the_share_that_its_clipped_squares_cover() -> None:
    """Counted here at every place that a square's centre may have, on one axis and the other."""
    height, width, half = 12, 20, 3
    covered = [
        sum(min(c + half, length) - max(c - half, 0) for c in range(length)) / length / length
        for length in (height, width)
    ]
    method = load_method(find("method", "cutout"))(side_frac=0.5)
    step, _ = step_for(method, torch.ones(20_000, 1, height, width))

    mixed, sources = method.mix(step.images, step)

    assert float((mixed == 0).float().mean()) == pytest.approx(covered[0] * covered[1], rel=0.01)
    assert sources.index.shape == (20_000, 1)
    places = {tuple(image.flatten().tolist()) for image in mixed[:200]}
    assert len(places) > 100  # each image has a place of its own


def test_fmix_keeps_a_share_that_is_uniform_and_says_it_to_the_pixel() -> None:
    method = load_method(find("method", "fmix"))(alpha=1.0)
    shares = []
    for seed in range(400):
        step, _ = step_for(method, torch.eye(4)[:, :, None, None].expand(4, 4, 16, 12), seed)
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

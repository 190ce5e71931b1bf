"""The formulas of the field's methods that read features, attention or a history, derived again."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import gaussian_blur

from methods import alignmix, augmix, automix, comixup, guidedmix, snapmix, tokenmix
from mixbench.contract import Output, Sources, Step
from mixbench.contract.loading import load_method
from mixbench.errors import BadParameter, UsageError
from mixbench.registry.units import find
from mixbench.streams import generator
from mixbench.testing.toy import CLASSES, Subject, ToyTask, noise, step_of, subject_of
from mixbench.train.mixing import mixed_step


def method_of(name: str, **parameters: Any) -> Any:
    return load_method(find("method", name))(**parameters)


def step_for(name: str, images: Tensor, seed: int = 0, **parameters: Any) -> tuple[Any, Step]:
    """Return a method that is bound to the toy model, and a step with the images."""
    subject = subject_of(find("method", name), parameters)
    method, model, task = subject.bound(images.shape[1], (images.shape[2], images.shape[3]))
    return method, step_of(images, seed, task, model.train())


def attention(number: int, size: tuple[int, int]) -> Tensor:
    drawn = torch.rand(number, *size, generator=generator(2, "synthetic"))
    return drawn / drawn.sum((1, 2), keepdim=True)


def logits(number: int, seed: int = 3) -> Tensor:
    return torch.randn(number, CLASSES, generator=generator(seed, "synthetic"))


# Tokens


def test_mixpro_keeps_as_many_cells_of_each_image_at_places_of_its_own() -> None:
    method, step = step_for("mixpro", noise(6, (16, 12)), grid=4)

    mixed, sources = method.mix(step.images, step)

    kept = (mixed == step.images).all(1).view(6, 4, 4, 4, 3).all(4).all(2).flatten(1)
    moved = sources.index[:, 1] != torch.arange(6)
    assert len(set(kept[moved].sum(1).tolist())) == 1
    assert len({tuple(row) for row in kept[moved].tolist()}) > 1
    torch.testing.assert_close(kept[moved].float().mean(1), sources.weight[moved, 0])


@pytest.mark.parametrize("detach", [True, False])
def test_mixpro_trusts_the_attention_as_far_as_the_prediction(detach: bool) -> None:
    method, step = step_for("mixpro", noise(6, (16, 12)), grid=4, detach_similarity=detach)
    mixed, sources = method.mix(step.images, step)
    seen, out = attention(6, (4, 3)), logits(6).requires_grad_()

    loss = method.loss(Output(out, torch.empty(0), seen), sources, step)

    own_pixels = (mixed == step.images).all(1).float()
    terms = []
    for b, (own, other) in enumerate(sources.index.tolist()):
        kept = own_pixels[b].view(4, 4, 3, 4).mean((1, 3)) if own != other else torch.ones(4, 3)
        attended = float((seen[b] * kept).sum())
        label = torch.zeros(CLASSES)
        area = float(sources.weight[b, 0])
        label[step.targets[own]] += area
        label[step.targets[other]] += 1 - area
        shown = out[b].softmax(0)
        trust = (label @ shown) / label.norm() / shown.norm()
        weight = trust * attended + (1 - trust) * area
        costs = -out[b].log_softmax(0)
        terms.append(weight * costs[step.targets[own]] + (1 - weight) * costs[step.targets[other]])
    expected = torch.stack(terms).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    gradients = [torch.autograd.grad(x, out, retain_graph=True)[0] for x in (loss, expected)]
    given, wanted = gradients
    assert torch.allclose(given, wanted, atol=1e-5) != detach


def test_tla_gives_what_the_labels_become_on_their_way_through_the_blocks() -> None:
    """The source's way: the labels of all tokens, multiplied by the attention of every block."""
    method, step = step_for("tla", noise(6, (16, 12)), seed=3)
    net: Any = step.model
    maps: list[Tensor] = []
    for block in net.net.blocks:
        block.attn.attn_drop.register_forward_hook(lambda _m, _i, out: maps.append(out.mean(1)))
    mixed, sources = method.mix(step.images, step)

    output = step.model(mixed)
    loss = method.loss(output, sources, step)

    labels = F.one_hot(step.targets, CLASSES).float()
    own, other = (labels[index] for index in sources.index.unbind(1))
    inside = sources.more[0].flatten(1)[..., None]
    assert 0 < float(inside.mean()) < 1
    of_tokens = own[:, None] * (1 - inside) + other[:, None] * inside
    of_class_token = own * sources.weight[:, :1] + other * sources.weight[:, 1:]
    prefix = of_class_token[:, None].expand(-1, net.net.num_prefix_tokens, -1)
    sequence = torch.cat([prefix, of_tokens], 1)
    for weights in maps:
        sequence = (weights @ sequence + sequence) / 2
    pooled = net.net.global_pool != "token"
    target = sequence[:, net.net.num_prefix_tokens :].mean(1) if pooled else sequence[:, 0]
    expected = -(target * output.out.log_softmax(1)).sum(1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_smmix_moves_the_most_attended_window_onto_the_least_attended() -> None:
    images = noise(6, (16, 12))
    method, step = step_for("smmix", images, seed=1)
    seen = step.predict()
    assert seen.attention is not None
    height, width = seen.attention.shape[1:]

    mixed, sources = method.mix(step.images, step)

    pasted = sources.more[0].bool()
    high, wide = int(pasted[0].any(1).sum()), int(pasted[0].any(0).sum())

    def window(map_: Tensor, *, most: bool) -> tuple[int, int]:
        sums = {
            (r, c): float(map_[r : r + high, c : c + wide].sum())
            for r, c in product(range(height - high + 1), range(width - wide + 1))
        }
        return (max if most else min)(sums, key=lambda corner: sums[corner])

    patch = (16 // height, 12 // width)
    for b, (_, other) in enumerate(sources.index.tolist()):
        expected = images[b].clone()
        (r, c), (r2, c2) = window(seen.attention[b], most=False), window(
            seen.attention[other], most=True
        )  # fmt: skip
        rows, columns = high * patch[0], wide * patch[1]
        r, c, r2, c2 = r * patch[0], c * patch[1], r2 * patch[0], c2 * patch[1]
        expected[:, r : r + rows, c : c + columns] = images[
            other, :, r2 : r2 + rows, c2 : c2 + columns
        ]
        assert torch.equal(mixed[b], expected)


def test_smmix_has_three_losses() -> None:
    method, step = step_for("smmix", noise(6, (16, 12)), seed=1)
    seen = step.predict()
    mixed, sources = method.mix(step.images, step)
    output = step.model(mixed)

    loss = method.loss(output, sources, step)

    labels = F.one_hot(step.targets, CLASSES).float()
    own, other = sources.index.unbind(1)
    lam = sources.weight[:, :1]
    target = lam * labels + (1 - lam) * labels[other]
    expected = F.cross_entropy(output.out, target)
    for region, index in ((1 - sources.more[0], own), (sources.more[0], other)):
        means = torch.stack([f[:, m > 0].mean(1) for f, m in zip(output.features, region,
                                                                 strict=True)])  # fmt: skip
        expected = expected + F.cross_entropy(method.head(means), step.targets[index]) / 2
    both = (lam * seen.out + (1 - lam) * seen.out[other]).softmax(1)
    expected = expected + (both * (both.log() - output.out.log_softmax(1))).sum(1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    with pytest.raises(BadParameter, match="smallest must be at most largest"):
        method_of("smmix", smallest=0.8, largest=0.5)


def test_tokenmix_fills_its_budget_with_blocks() -> None:
    """Of 196 patches, half and 14 more, unless no block was found that fits."""
    found = []
    for seed in range(50):
        pasted = torch.zeros(14, 14)
        tokenmix._add_blocks(pasted, 112, generator(seed, "mix"))
        found.append(int(pasted.sum()))
    assert max(found) == 112
    assert np.mean(found) > 108


def test_tokenmix_weighs_by_the_teachers_evidence_of_the_class() -> None:
    method, step = step_for("tokenmix", noise(6, (16, 12)))
    teacher: Any = step.teachers["teacher"]
    mixed, sources = method.mix(step.images, step)
    out = logits(6)

    loss = method.loss(Output(out, torch.empty(0)), sources, step)

    features = teacher(step.images).features.detach()
    layer = teacher.classifier
    shown = torch.einsum("kd,bdhw->bkhw", layer.weight, features) + layer.bias[:, None, None]
    seen = shown.softmax(1)[torch.arange(6), step.targets]
    seen = (seen / seen.sum((1, 2), keepdim=True)).detach()
    changed = (mixed != step.images).any(1)[:, ::2, ::2].any(0).float()  # places of 2x2 pixels
    assert changed.shape == seen.shape[1:]
    costs = -out.log_softmax(1)
    terms = [
        costs[b, step.targets[own]] * (seen[own] * (1 - changed)).sum()
        + costs[b, step.targets[other]] * (seen[other] * changed).sum()
        for b, (own, other) in enumerate(sources.index.tolist())
    ]
    assert loss.item() == pytest.approx(float(torch.stack(terms).mean()), rel=1e-4)


# Features


@pytest.mark.parametrize("channels", ["mean", "last_channel"])
def test_attentivemix_keeps_the_most_attended_places(channels: str) -> None:
    method, step = step_for("attentivemix", noise(6, (16, 12)), channels=channels, share=0.25)
    features = step.teachers["teacher"](step.images).features
    seen = features.mean(1) if channels == "mean" else features[:, -1]

    mixed, sources = method.mix(step.images, step)

    for b, other in enumerate(sources.index[:, 1].tolist()):
        order = seen[b].flatten().argsort(descending=True)[:12]  # a quarter of 8 x 6
        kept = torch.zeros(48, dtype=torch.bool)
        kept[order] = True
        pixels = kept.view(8, 6).repeat_interleave(2, 0).repeat_interleave(2, 1)
        expected = torch.where(pixels, step.images[b], step.images[other])
        assert torch.equal(mixed[b], expected)
    assert sources.weight[:, 0].tolist() == pytest.approx([0.25] * 6)


def test_snapmix_weighs_by_the_evidence_in_each_box() -> None:
    seed = next(s for s in range(50) if step_mixed(s))
    method, step = step_for("snapmix", noise(6, (16, 12)), seed=seed, alpha=1.0)
    seen = snapmix.semantic_map(step)
    model: Any = step.model
    with torch.no_grad():
        features = model.eval()(step.images).features.relu()
        maps = torch.einsum("bd,bdhw->bhw", model.classifier.weight[step.targets], features)
        maps = F.interpolate(maps[:, None], (16, 12), mode="bilinear")[:, 0]
    shifted = maps - maps.amin((1, 2), keepdim=True)
    torch.testing.assert_close(seen, shifted / shifted.sum((1, 2), keepdim=True))

    mixed, sources = method.mix(step.images, step)
    out = logits(6)
    loss = method.loss(Output(out, torch.empty(0)), sources, step)

    rng = generator(seed, "mix")
    torch.rand((), generator=rng)
    to, origin = (method._draw_box((16, 12), rng) for _ in range(2))
    terms = []
    for b, other in enumerate(sources.index[:, 1].tolist()):
        patch = step.images[other, :, origin.top : origin.bottom, origin.left : origin.right]
        size = (to.bottom - to.top, to.right - to.left)
        expected = step.images[b].clone()
        expected[:, to.top : to.bottom, to.left : to.right] = F.interpolate(
            patch[None], size, mode="bilinear"
        )[0]
        torch.testing.assert_close(mixed[b], expected)
        own = 1 - seen[b, to.top : to.bottom, to.left : to.right].sum()
        its = seen[other, origin.top : origin.bottom, origin.left : origin.right].sum()
        costs = -out[b].log_softmax(0)
        terms.append(own * costs[step.targets[b]] + its * costs[step.targets[other]])
    assert loss.item() == pytest.approx(float(torch.stack(terms).mean()), rel=1e-4)


def step_mixed(seed: int) -> bool:
    """Return whether a stream draws two boxes that are not empty."""
    method, step = step_for("snapmix", noise(6, (16, 12)), seed=seed, alpha=1.0)
    return bool(method.mix(step.images, step)[1].more)


def test_alignmix_moves_features_to_where_they_belong() -> None:
    """Features of the same places in another order come back; plain Sinkhorn gives the same."""
    rng = generator(4, "synthetic")
    own = torch.randn(3, 12, 8, generator=rng)
    order = torch.randperm(12, generator=rng)
    moves = alignmix.assignment(own, own[:, order], 0.1, 100)
    torch.testing.assert_close(moves @ own[:, order], own, atol=1e-3, rtol=0)

    other = own + 0.3 * torch.randn(3, 12, 8, generator=rng)
    moves = alignmix.assignment(own, other, 5.0, 100)
    for a, b, found in zip(own.double(), other.double(), moves, strict=True):
        kernel = torch.exp(-((a[:, None] - b[None]) ** 2).sum(2) / 5.0)
        left = right = torch.ones(12, dtype=torch.float64) / 12
        for _ in range(500):
            left = (1 / 12) / (kernel @ right)
            right = (1 / 12) / (kernel.T @ left)
        expected = 12 * left[:, None] * kernel * right
        torch.testing.assert_close(found.double(), expected, atol=0.05, rtol=0)


def test_alignmix_mixes_the_last_block_and_the_input() -> None:
    method, step = step_for("alignmix", noise(6, (16, 12)))
    sites = set()
    for seed in range(8):
        step.rng = generator(seed, "mix")
        mixed_step(method, step).loss.backward()
        sites.add(step.site)
    assert sites == {"input", "last"}


# Saliency


def test_spectral_residuals_are_those_of_numpy() -> None:
    images = noise(2, (24, 20))
    found = guidedmix.spectral_residual(images)
    kernel = np.exp(-0.5 * (np.arange(-3, 4) / 3.0) ** 2)
    kernel /= kernel.sum()
    for image, own in zip(images.double().numpy(), found, strict=True):
        grey = 0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        spectrum = np.fft.fft2(grey)
        size = np.abs(spectrum)
        logs = np.pad(np.log(size), 1, mode="edge")
        smooth = sum(logs[r : r + 24, c : c + 20] for r, c in product(range(3), range(3))) / 9
        residual = np.exp(np.log(size) - smooth + 1j * np.angle(spectrum))
        seen = np.pad(np.abs(np.fft.ifft2(residual)), 3, mode="reflect")
        rows = sum(k * seen[i : i + 24] for i, k in enumerate(kernel))
        expected = sum(k * rows[:, i : i + 20] for i, k in enumerate(kernel))
        np.testing.assert_allclose(own.numpy(), expected, rtol=1e-3, atol=1e-5)


def test_guidedmix_pairs_in_one_cycle_that_goes_on_to_the_farthest() -> None:
    seen = torch.rand(9, 6, 5, generator=generator(1, "synthetic"))
    partner = guidedmix.one_cycle(seen).tolist()

    distance = torch.cdist(seen.flatten(1), seen.flatten(1))
    first = int(distance.argmax()) // 9
    at, unused = first, set(range(9)) - {first}
    while unused:
        farthest = max(unused, key=lambda item: float(distance[at, item]))
        assert partner[at] == farthest
        unused.remove(farthest)
        at = farthest
    assert partner[at] == first


@pytest.mark.parametrize("saliency", ["sr", "ap"])
def test_guidedmix_shows_what_is_salient(saliency: str) -> None:
    method, step = step_for("guidedmix", noise(6, (16, 12)), saliency=saliency, prob=1.0)
    seen = guidedmix.spectral_residual(step.images) if saliency == "sr" else step.saliency().float()
    seen = gaussian_blur(seen[:, None], [7, 7], [3.0, 3.0])[:, 0]
    seen = seen / seen.sum((1, 2), keepdim=True)

    mixed, sources = method.mix(step.images, step)

    other = sources.index[:, 1]
    share = (seen / (seen + seen[other]))[:, None]
    torch.testing.assert_close(
        mixed, share * step.images + (1 - share) * step.images[other], atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(sources.weight[:, 0], share.mean((1, 2, 3)))


def test_comixup_finds_masks_that_no_cell_can_improve() -> None:
    rng = generator(5, "synthetic")
    unary, own = torch.rand(3, 16, 6, generator=rng), torch.tensor([[9.0, 4, 3, 0, 0, 0]] * 3)
    labels = comixup.with_blends(unary, own, blends=True)
    assert labels.images.shape == (3, 9, 6)
    assert labels.images[0, 6].tolist() == [0.5, 0.5, 0, 0, 0, 0]

    found = comixup.solve(labels, 4, 0.3)

    for part in range(3):
        chosen = [
            next(k for k in range(9) if torch.equal(labels.images[part, k], cell))
            for cell in found[part]
        ]

        def energy(grid: list[int], part: int = part) -> float:
            total = sum(float(labels.cost[part, i, k]) for i, k in enumerate(grid))
            for i, j in product(range(16), range(16)):
                if j in {i + 4} or (j == i + 1 and j % 4):
                    total += 0.3 * float(labels.change[part, grid[i], grid[j]])
            return total

        best = energy(chosen)
        for cell, label in product(range(16), range(9)):
            other = [*chosen]
            other[cell] = label
            assert energy(other) >= best - 1e-5


def test_comixup_shares_cells_among_all_images_of_a_part() -> None:
    method, step = step_for("comixup", noise(10, (16, 12)), part=4)

    mixed, sources = method.mix(step.images, step)

    for b in range(10):
        part = range(b // 4 * 4, min(b // 4 * 4 + 4, 10))
        used = sources.index[b][sources.weight[b] > 0].tolist()
        assert set(used) <= set(part)
        assert len(used) > 0
    assert not torch.equal(mixed, step.images)
    used = torch.tensor([[[True, True, False], [True, True, False], [False, False, True]]])
    expected = [[[1, 0, 0], [0, 1, 0], [0, 0, 0]]]
    assert comixup.same_images(used).tolist() == expected


# History, and learned masks


def test_recursivemix_pastes_the_batch_before_with_its_mixed_label() -> None:
    method, step = step_for("recursivemix", noise(6, (16, 12)), seed=1, consistency=0.5)
    first, sources = method.mix(step.images, step)
    before = logits(6, 8)
    method.loss(Output(before, torch.zeros(6, method.head.in_features, 8, 6)), sources, step)
    labels, images = F.one_hot(step.targets, CLASSES).float(), first
    assert torch.equal(first, step.images)
    for seed in range(2, 6):
        now = step_of(noise(6, (16, 12)).flip(0), seed, step.task, step.model)
        mixed, sources = method.mix(now.images, now)
        if not sources.more:  # the box is empty: the history begins again
            output = now.model(mixed)
            method.loss(output, sources, now)
            labels, images = F.one_hot(now.targets, CLASSES).float(), mixed
            before = output.out.detach()
            continue
        lam = float(sources.more[0][0])
        left, top, right, bottom = (
            round(v * n) for v, n in zip(sources.more[3][0].tolist(), (12, 16, 12, 16), strict=True)
        )
        assert lam == pytest.approx(1 - (right - left) * (bottom - top) / 192)
        expected = now.images.clone()
        expected[..., top:bottom, left:right] = F.interpolate(images, (bottom - top, right - left))
        assert torch.equal(mixed, expected)
        output = now.model(mixed)
        loss = method.loss(output, sources, now)
        target = lam * F.one_hot(now.targets, CLASSES) + (1 - lam) * labels
        of_image = F.cross_entropy(output.out, target)
        box = method._of_box(output.features, sources.more[3])
        of_box = F.cross_entropy(box, before.softmax(1))
        assert loss.item() == pytest.approx((of_image + 0.5 * (1 - lam) * of_box).item(), rel=1e-5)
        labels, images, before = target, mixed, output.out.detach()


def test_automix_computes_masks_by_attention_between_places() -> None:
    method, step = step_for("automix", noise(4, (16, 12)), lam_input="concat")
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter, generator=generator(1, "synthetic"))
    assert step.ema is not None
    features = automix.seen_by(step.ema, step.images).features
    partner = torch.tensor([1, 2, 3, 0])

    mask = method.mask(features, partner, 0.3, step.images.shape[-2:])

    channels, height, width = features.shape[1:]
    query, value = (layer.weight.flatten(1) for layer in (method.query, method.value))
    for b in range(4):
        own = torch.cat([features[b], torch.full((1, height, width), 0.3)]).flatten(1)
        other = torch.cat([features[int(partner[b])], torch.full((1, height, width), 0.7)])
        other = other.flatten(1)
        q, k = (query @ x + method.query.bias[:, None] for x in (own, other))
        weights = ((q.T @ k) / (channels // 2) ** 0.5).softmax(1)
        seen = weights @ (value @ other + method.value.bias[:, None]).T
        expected = F.interpolate(seen.view(1, 1, height, width), (16, 12)).sigmoid()
        torch.testing.assert_close(mask[b : b + 1], expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["automix", "samix"])
def test_only_the_average_of_the_model_trains_the_masks(name: str) -> None:
    """The loss of the mixed images reaches the model, that of the masks their block."""
    method, step = step_for(name, noise(6, (16, 12)), seed=3)
    mixed, sources = method.mix(step.images, step)
    assert not mixed.requires_grad
    mask, partner, lam = sources.more
    out = step.model(mixed).out

    loss = method.loss(Output(out, torch.empty(0)), sources, step)

    assert step.ema is not None
    labels = F.one_hot(step.targets, CLASSES).float()
    own, other = sources.index.unbind(1)
    taught = step.images * (1 - mask) + step.images[partner] * mask
    recognised = F.cross_entropy(
        step.ema(taught).out, lam[:, None] * labels + (1 - lam)[:, None] * labels[partner]
    )
    off = ((1 - mask.mean() - lam[0]).abs() - 0.1).clamp_min(0)
    if name == "samix":
        off = off - 2 * (mask - mask.mean()).square().mean()
    of_model = F.cross_entropy(
        out, sources.weight[:, :1] * labels[own] + sources.weight[:, 1:] * labels[other]
    ) + F.cross_entropy(step.model(step.images).out, step.targets)
    expected = of_model + recognised + 0.1 * off
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    block = [*method.parameters()]
    gradients = [
        torch.autograd.grad(x, block, retain_graph=True, allow_unused=True)
        for x in (loss, recognised + 0.1 * off)
    ]
    for given, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(given, wanted, atol=1e-6, rtol=1e-4)
    assert all(p.grad is None for p in step.ema.parameters())


@pytest.mark.parametrize("number", [2, 3])
def test_adautomix_attends_to_the_other_images_and_shares_out_each_pixel(number: int) -> None:
    method, step = step_for("adautomix", noise(4, (16, 12)), num_images=number, lam_input="concat")
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter, generator=generator(1, "synthetic"))
    features = torch.randn(4, 8, 4, 3, generator=generator(2, "synthetic"))
    method.query, method.key = (torch.nn.Conv2d(9, 4, 1) for _ in range(2))
    method.value = torch.nn.Conv2d(9, 1, 1)
    index = torch.tensor([[0, 1, 2], [3, 3, 1], [2, 0, 3], [1, 2, 0]])[:, :number]
    weight = torch.tensor([0.5, 0.2, 0.3])[:number].expand(4, -1)

    masks = method.masks(features, Sources(index, weight), step.images.shape[-2:])

    def applied(layer: torch.nn.Conv2d, image: Tensor) -> Tensor:
        return F.linear(image.T, layer.weight.flatten(1), layer.bias).T

    for b, row in enumerate(index.tolist()):
        images = [
            torch.cat([features[i], torch.full((1, 4, 3), float(w))]).flatten(1)
            for i, w in zip(row, weight[b], strict=True)
        ]
        maps = []
        for i, image in enumerate(images):
            query = applied(method.query, image).clamp_min(0)
            keys = [applied(method.key, other).clamp_min(0) for other in images]
            products = torch.stack([query.T @ key for j, key in enumerate(keys) if j != i]).sum(0)
            attention = (products / 2).softmax(1)
            maps.append((attention @ applied(method.value, image).T).view(4, 3))
        size = (16, 12)
        large = F.interpolate(torch.stack(maps)[None], size, mode="bilinear")
        torch.testing.assert_close(masks[b], large[0].softmax(0), atol=1e-5, rtol=1e-4)


def mixed_by(sources: Sources, values: Tensor, shares: Tensor | None = None) -> Tensor:
    """Return the sum of the sources' values, weighted by their weights or by masks."""
    shares = sources.weight[:, :, None, None, None] if shares is None else shares[:, :, None]
    return (shares.view(*shares.shape[: values.dim() + 1]) * values[sources.index]).sum(1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("number", "similarity"), [(3, "lower"), (2, "raise")])
def test_adautomix_hides_from_the_average_and_helps_it(
    number: int, similarity: str, seed: int
) -> None:
    """In adversarial steps the block gets the reverse of the loss, and the similarity."""
    method, step = step_for(
        "adautomix", noise(6, (16, 12)), seed, num_images=number, similarity=similarity
    )
    mixed, sources = method.mix(step.images, step)
    index, weight, mask, *outputs = sources.more
    taught, average = Sources(index, weight), step.ema
    assert average is not None
    out, labels = step.model(mixed).out, F.one_hot(step.targets, CLASSES).float()

    loss = method.loss(Output(out, torch.empty(0)), sources, step)

    unmixed = F.cross_entropy(step.model(step.images).out, step.targets)
    if number == 3:
        plain = step.model(mixed_by(sources, step.images)).out
        unmixed = (unmixed + F.cross_entropy(plain, mixed_by(sources, labels))) / 2
    seen = average(mixed_by(taught, step.images, mask)).out
    of_masks = F.cross_entropy(seen, mixed_by(taught, labels))
    if outputs:
        own = average(step.images).out[index]
        similar = (F.cosine_similarity(seen[:, None], own, 2) * weight).sum(1).mean()
        of_masks = 0.7 * similar * (1 if similarity == "lower" else -1) - 0.3 * of_masks
    of_model = F.cross_entropy(out, mixed_by(sources, labels))
    assert loss.item() == pytest.approx((of_model + unmixed + of_masks).item(), rel=1e-4)
    found, expected = (
        torch.autograd.grad(x, [*method.parameters()], retain_graph=True) for x in (loss, of_masks)
    )
    for given, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(given, wanted, atol=1e-6, rtol=1e-4)
    assert all(p.grad is None for p in average.parameters())


def test_adautomix_trains_masks_on_other_pairs_but_on_the_same_triples_of_weights() -> None:
    for number in (2, 3):
        method, step = step_for("adautomix", noise(6, (16, 12)), num_images=number)
        mixed, sources = method.mix(step.images, step)
        index, weight, mask, *_ = sources.more
        assert not mixed.requires_grad
        assert mask.requires_grad
        assert torch.equal(weight, sources.weight) == (number == 3)
        assert torch.equal(index[:, 0], torch.arange(6)) == (number == 2)
        assert not torch.equal(index, sources.index)


@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize("number", [2, 3])
def test_adautomix_shows_the_images_of_the_labels_under_their_masks(
    number: int, margin: float
) -> None:
    method, step = step_for(
        "adautomix", noise(6, (16, 12)), num_images=number, lam_margin=margin, lam_input="concat"
    )
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter, generator=generator(1, "synthetic"))

    mixed, sources = method.mix(step.images, step)

    assert step.ema is not None
    features = automix.seen_by(step.ema, step.images).features
    masks = method.masks(features, sources, step.images.shape[-2:])
    if margin:
        masks = sources.weight[:, :, None, None].expand_as(masks)
    torch.testing.assert_close(mixed, mixed_by(sources, step.images, masks), atol=1e-5, rtol=1e-4)
    assert step.num_saliency_images == 6 * (4 if number == 3 else 3)


def test_models_with_a_loss_of_their_own_are_refused() -> None:
    method: Any = method_of("adautomix")
    model: Any = torch.nn.Identity()
    model.loss = F.cross_entropy
    with pytest.raises(UsageError, match="computes its own loss"):
        method.bind(model, ToyTask())


def test_half_of_adautomix_s_steps_are_adversarial() -> None:
    method, step = step_for("adautomix", noise(2, (16, 12)))
    turns = [len(method.mix(step.images, step)[1].more) == 4 for _ in range(100)]
    assert 30 < sum(turns) < 70


def test_automix_needs_a_map_before_the_last() -> None:
    method: Any = method_of("automix")
    model = Subject(lambda: method_of("tla")).bound()[1]
    with pytest.raises(UsageError, match="choose a convolutional network"):
        method.bind(model, ToyTask())


# AugMix


@pytest.mark.parametrize("number", range(len(augmix.OPERATIONS)))
def test_operations_of_augmix_are_those_of_pil(number: int) -> None:
    """The source applies those of PIL; edges may differ by rounding."""
    ramp = torch.linspace(20, 230, 32)
    image = torch.stack([ramp.expand(24, 32), ramp.flip(0).expand(24, 32),
                         torch.linspace(0, 200, 24)[:, None].expand(24, 32)])  # fmt: skip
    image = image.round().to(torch.uint8)
    pil, level = Image.fromarray(image.permute(1, 2, 0).numpy()), 0.3
    bilinear = Image.Resampling.BILINEAR
    affine = Image.Transform.AFFINE

    def moved(*matrix: float) -> Image.Image:
        return pil.transform(pil.size, affine, matrix, resample=bilinear)

    expected = (
        lambda: ImageOps.autocontrast(pil),
        lambda: ImageOps.equalize(pil),
        lambda: ImageOps.posterize(pil, 4 - int(level * 4)),
        lambda: pil.rotate(int(level * 30), resample=bilinear),
        lambda: ImageOps.solarize(pil, 256 - int(level * 256)),
        lambda: moved(1, level * 0.3, 0, 0, 1, 0),
        lambda: moved(1, 0, 0, level * 0.3, 1, 0),
        lambda: moved(1, 0, -int(level * 32 / 3), 0, 1, 0),
        lambda: moved(1, 0, 0, 0, 1, -int(level * 24 / 3)),
    )[number]()
    wanted = torch.from_numpy(np.asarray(expected).copy()).permute(2, 0, 1).float()

    found = augmix.OPERATIONS[number](image, level, 1).float()

    close = (found - wanted).abs() <= 6
    assert float(close.float().mean()) > 0.93


def test_augmix_adds_the_divergence_of_three_views() -> None:
    method, step = step_for("augmix", noise(6, (16, 12)).sigmoid())
    step.model.eval()
    first, sources = method.mix(step.images, step)
    output = step.model(first)

    loss = method.loss(output, sources, step)

    views = [output.out, step.model(sources.more[0]).out, step.model(step.images).out]
    shown = [view.softmax(1) for view in views]
    middle = sum(shown) / 3
    divergence = sum(F.kl_div(middle.log(), p, reduction="batchmean") for p in shown) / 3
    expected = F.cross_entropy(views[2], step.targets) + 12 * divergence
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert not torch.equal(first, sources.more[0])
    method.check(ToyTask(), None)
    silent = ToyTask()
    silent.normalization = None
    with pytest.raises(UsageError, match="how its images are normalised"):
        method.check(silent, None)


def test_sources_carry_what_the_loss_needs_by_rows() -> None:
    sources = Sources.pair(torch.tensor([1, 2, 0]), 0.4, torch.arange(3))
    assert sources.rows(slice(1, None)).more[0].tolist() == [1, 2]
    assert torch.equal(Sources.of(*sources.tensors).more[0], sources.more[0])


@pytest.mark.parametrize("kind", ["class_token", "patches", "rollout"])
def test_attention_of_each_kind_is_that_of_the_weights(kind: Any) -> None:
    task = ToyTask()
    net: Any = task.build("toy_vit").eval()
    net.keep_attention(kind)
    kept: list[Tensor] = []
    for block in net.net.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _m, _i, out: kept.append(out.mean(1)))

    found = net(noise(3, (16, 12))).attention.flatten(1)

    first = net.net.num_prefix_tokens
    asks = slice(first, None) if kind == "patches" or net.net.global_pool != "token" else slice(1)
    size = kept[0].shape[-1]
    whole = torch.eye(size).expand(3, -1, -1)
    for weights in kept if kind == "rollout" else kept[-1:]:
        whole = (weights @ whole + whole) / 2 if kind == "rollout" else weights @ whole
    expected = whole[:, asks].mean(1)[:, first:]
    if kind != "rollout":
        expected = expected / expected.sum(1, keepdim=True)
    torch.testing.assert_close(found, expected)

"""Recipes of the field: equal to timm's optimizers, schedules, losses and averages."""

import random  # noqa: TID251  # what timm draws from
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from timm.loss.binary_cross_entropy import BinaryCrossEntropy
from timm.loss.cross_entropy import SoftTargetCrossEntropy
from timm.optim._optim_factory import create_optimizer_v2
from timm.optim._param_groups import param_groups_layer_decay
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.utils.clip_grad import dispatch_clip_grad
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor

from mixbench.contract import (
    Backbone,
    ClassIndex,
    Method,
    Normalization,
    Output,
    Part,
    Sources,
    Split,
    Step,
    mixed_loss,
)
from mixbench.contract.loading import load_method
from mixbench.declare import SMALL_FIELD_PROTOCOLS, TOP1, Recipe
from mixbench.declare.facts import ADDED
from mixbench.errors import BadParameter, UsageError
from mixbench.kernels import blend, permutation
from mixbench.registry.units import available, find
from mixbench.streams import generator, stream_seed
from mixbench.testing.measuring import unchanged_global_randomness
from mixbench.testing.toy import Subject, ToyTask, lit, step_of
from mixbench.train.checkpoints import Stopped
from mixbench.train.criterion import BinaryCrossEntropy as Bce
from mixbench.train.criterion import criterion
from mixbench.train.loop import batch_index, train
from mixbench.train.mixing import mix, mixing_of
from mixbench.train.optimizer import make_optimizer, parameter_groups
from mixbench.train.schedule import learning_rate
from mixbench.train.setup import Setup, State, begin
from mixbench.vision.images.augment import CropFlip
from mixbench.vision.images.policies import erase, transform_of
from mixbench.vision.images.splits import (
    ResidentSplit,
    StreamedSplit,
    with_augmentation,
)
from mixbench.vision.models.build import build
from mixbench.vision.tasks.classification import Classification

PLAIN = Normalization((0.5, 0.4, 0.3), (0.3, 0.2, 0.25))
SMALL = {
    "rsb_a3": "small_test_convnext",
    "deit": "small_test_vit",
    "convnext": "small_test_convnext",
}
NAMES = list(SMALL)
OPTIMIZERS: tuple[Literal["sgd", "adam", "adamw", "lamb"], ...] = ("sgd", "adam", "adamw", "lamb")


Seen = tuple[Tensor, Tensor, Tensor, float]  # mixed images, the targets of both sources, λ


class Photos(Classification):
    """Forty images of noise in five classes."""

    version = 1
    metrics = TOP1
    holdout = 0.0

    def __init__(self) -> None:
        super().__init__(5, (32, 32), PLAIN)

    def load(self, part: Part, folder: Path, seed: int) -> Split:  # noqa: ARG002  # the contract
        images = torch.randint(256, (40, 3, 32, 32), generator=generator(0, "synthetic"))
        classes = torch.arange(40) % 5
        index = ClassIndex(classes, 5)
        return ResidentSplit(images.to(torch.uint8), classes, index, PLAIN, CropFlip(4, flip=0.5))


class Recorder(Method):
    """Mixup that remembers its batches."""

    version = 1

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Seen] = []

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        lam = float(step.beta(0.8, len(x)))
        partner = permutation(len(x), step.rng, x.device)
        mixed = blend(x, partner, lam)
        self.seen.append((mixed.clone(), step.targets, step.targets[partner], lam))
        return mixed, Sources.pair(partner, lam)


class Memory:
    """A journal that keeps the last state, and may start from one."""

    def __init__(self, start: State | None = None, stop_at: int = -1) -> None:
        self.start, self.stop_at = start, stop_at
        self.state: State = {}
        self.kept: dict[str, State] = {}

    def restore(self) -> State | None:
        return self.start

    def after_step(self, step: int, num_steps: int, state: Callable[[], State]) -> None:
        assert num_steps % 12 == 0
        if step == self.stop_at:
            self.state = deepcopy(state())
            raise Stopped

    def end_epoch(
        self,
        row: Mapping[str, float],  # noqa: ARG002  # the protocol
        weights: Callable[[], State],
        names: list[str],
    ) -> None:
        for name in names:
            self.kept[name] = deepcopy(weights())


def setup(recipe: Recipe, method: Method | None = None, **changes: Any) -> Setup:
    given: dict[str, Any] = {
        "task": Photos(),
        "method": method or Recorder(),
        "model": recipe.model,
    } | changes
    return Setup(recipe=recipe, seed=0, folder=Path(), device=torch.device("cpu"), **given)


def small(name: str, **changes: Any) -> Recipe:
    """A protocol with a small network, for 12 steps."""
    short: dict[str, Any] = {
        "model": SMALL[name],
        "epochs": 3,
        "batch_size": 10,
        "warmup_epochs": 1,
        "tail": 1,
    }
    return replace(SMALL_FIELD_PROTOCOLS[name], **(short | changes))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("rsb_a3", {}),
        ("rsb_a3", {"label_smoothing": 0.1, "bce_target_thresh": 0.0}),
        ("deit", {"clip_grad": 0.5}),
        ("convnext", {"layer_decay": 0.7, "ema_decay": 0.9}),
    ],
)
def test_trainings_equal_those_with_timms_parts(name: str, changes: dict[str, Any]) -> None:
    """Weights after 12 steps equal those of a loop of timm's parts on the same mixed batches."""
    recipe, method = small(name, auto_augment="", **changes), Recorder()
    start = deepcopy(begin(setup(recipe, method)).model)
    memory = Memory()

    run = train(setup(recipe, method), memory)

    replayed, average = replay_with_timm(recipe, start, method.seen)

    assert len(method.seen) == 12
    kept = {n.removeprefix("model."): t for n, t in memory.kept["epoch-3"].items()}
    assert_close(run.model.state_dict(), replayed.state_dict())
    assert_close(kept, average.module.state_dict() if average else replayed.state_dict())


def replay_with_timm(
    recipe: Recipe, model: Any, seen: Sequence[Seen]
) -> tuple[Backbone, ModelEmaV3 | None]:
    """Train a model with timm's optimizer, schedule, loss and average, on batches once seen."""
    options: dict[str, Any] = {"layer_decay": recipe.layer_decay} if recipe.layer_decay < 1 else {}
    optimizer = create_optimizer_v2(
        model.net,
        recipe.optimizer,
        recipe.lr,
        recipe.weight_decay,
        filter_bias_and_bn=True,
        **options,
    )
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=len(seen),
        lr_min=recipe.min_lr,
        warmup_t=4,
        warmup_lr_init=recipe.warmup_lr,
        t_in_epochs=False,
    )
    loss: torch.nn.Module = SoftTargetCrossEntropy()
    if recipe.bce_loss:
        loss = BinaryCrossEntropy(target_threshold=recipe.bce_target_thresh or None)
    average = ModelEmaV3(model, recipe.ema_decay) if recipe.ema_decay else None
    model.train()
    for step, (images, own, other, lam) in enumerate(seen):
        first, second = (_soft(targets, recipe.label_smoothing) for targets in (own, other))
        torch.manual_seed(stream_seed(0, "layer", step))
        optimizer.zero_grad()
        loss(model(images).out, lam * first + (1 - lam) * second).backward()
        if recipe.clip_grad:
            dispatch_clip_grad(model.parameters(), recipe.clip_grad)
        optimizer.step()
        scheduler.step_update(step + 1)
        if average is not None:
            average.update(model)
    return model, average


def assert_close(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    for name, ours in found.items():
        pairs = [(ours, expected[name])]
        if name.endswith("qkv.bias"):  # the keys' bias changes no output: Adam scales its rounding
            pairs = [*zip(ours.chunk(3)[::2], expected[name].chunk(3)[::2], strict=True)]
        for one, other in pairs:
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6, msg=name)


def _soft(targets: Tensor, smoothing: float) -> Tensor:
    """Targets as timm's Mixup smooths them: timm/data/mixup.py:15-27."""
    off = smoothing / 5
    return torch.full((len(targets), 5), off).scatter_(1, targets[:, None], 1 - smoothing + off)


@pytest.mark.parametrize("name", NAMES)
def test_schedules_equal_timms(name: str) -> None:
    recipe = SMALL_FIELD_PROTOCOLS[name]
    steps, warmup = 7 * recipe.epochs, 7 * recipe.warmup_epochs
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], recipe.lr)
    scheduler = CosineLRScheduler(
        optimizer, t_initial=steps, lr_min=recipe.min_lr, warmup_t=warmup,
        warmup_lr_init=recipe.warmup_lr, t_in_epochs=False,
    )  # fmt: skip

    for step in range(steps):
        scheduler.step_update(step)
        theirs = optimizer.param_groups[0]["lr"]
        assert learning_rate(recipe, step, steps) == pytest.approx(theirs, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("model", ["small_test_vit", "small_test_convnext", "resnet50"])
def test_layer_decay_and_exemptions_equal_timms(model: str) -> None:
    net = build(model, classes=5, size=(32, 32))
    recipe = Recipe(model, 1, filter_bias_and_bn=True, layer_decay=0.65, weight_decay=0.05)
    inner: Any = net.net
    exempt = inner.no_weight_decay() if hasattr(inner, "no_weight_decay") else ()

    ours = parameter_groups(net, Recorder(), recipe)
    theirs = param_groups_layer_decay(inner, 0.05, exempt, layer_decay=0.65)

    found, expected = _by_parameter(ours, "speed"), _by_parameter(theirs, "lr_scale")
    assert found.keys() == expected.keys()
    for parameter, values in expected.items():
        assert found[parameter] == pytest.approx(values)


def _by_parameter(groups: list[dict[str, Any]], scale: str) -> dict[int, tuple[float, float]]:
    return {
        id(p): (group[scale], group["weight_decay"]) for group in groups for p in group["params"]
    }


def test_without_new_fields_there_are_two_groups() -> None:
    """The state of the optimizer of earlier recipes keeps its form."""
    task, method = ToyTask(), Recorder()
    model = task.build("toy")

    groups = parameter_groups(model, method, Recipe("toy", 1, head_lr_mult=3))

    assert [group.keys() for group in groups] == [{"params", "speed"}] * 2
    assert [len(group["params"]) for group in groups] == [len([*model.parameters()]) - 2, 2]


def test_earlier_recipes_keep_their_values() -> None:
    """Keys and records of recipes that set nothing new are those of October 2026."""
    values = Recipe("resnet8", 3).values()

    assert values.keys() == {f.name for f in fields(Recipe)} - ADDED
    assert values.keys() == {
        "model", "epochs", "batch_size", "lr", "head_lr_mult", "momentum", "nesterov",
        "weight_decay", "optimizer", "milestones", "precision", "memory_format", "compile",
        "threads", "tail",
    }  # fmt: skip
    assert Recipe("resnet8", 3, drop_path=0.1).values()["drop_path"] == 0.1


@pytest.mark.parametrize("stop_at", [3, 5, 8])
def test_a_continued_training_is_bit_identical(stop_at: int) -> None:
    """With LAMB, a policy, erasing, an average of the weights and stochastic depth."""
    recipe = small(
        "rsb_a3", ema_decay=0.9, random_erasing=0.5, drop_path=0.2, aug_repeats=2, mix_prob=0.5,
    )  # fmt: skip
    whole, middle = Memory(), Memory(stop_at=stop_at)
    train(setup(recipe), whole)
    with pytest.raises(Stopped):
        train(setup(recipe), middle)

    resumed = Memory(start=middle.state)
    train(setup(recipe), resumed)

    assert middle.state["step"] == stop_at
    for name, tensor in whole.kept["epoch-3"].items():
        assert torch.equal(tensor, resumed.kept["epoch-3"][name]), name


# --- mixing


ELEMENTWISE = [n for n in available("method") if find("method", n).declared.per_element]


@pytest.fixture(params=ELEMENTWISE)
def elementwise(request: pytest.FixtureRequest) -> Method:
    return load_method(find("method", request.param))()


def test_elements_have_a_weight_of_their_own_that_fits_their_pixels(elementwise: Method) -> None:
    task, seen = ToyTask(8), set()
    model = task.build("toy")
    for seed in range(8):
        images = lit(7, (8, 12), 8, seed)
        step = step_of(images.clone(), seed, task, model, overwritable=True)
        step.per_element = True
        mixed, sources = elementwise.mix(step.images, step)
        before, after = (x[:, :-1].mean((2, 3)) for x in (images, mixed))
        said = (before[sources.index] * sources.weight[..., None]).sum(1)
        torch.testing.assert_close(after, said, rtol=1e-4, atol=1e-4)
        seen |= {round(w, 4) for w in sources.weight[:, 0].tolist()}
    assert len(seen) > 20 or type(elementwise).__name__ in {"NoMixing", "LabelSmoothing"}


def test_choices_may_mix_different_numbers_of_images() -> None:
    one_of: Any = load_method(find("method", "one_of"))()
    choices = ("mixup", "random_patchmix", "none")
    one_of.choices = [load_method(find("method", name))() for name in choices]
    images, task = lit(7, (8, 12), 8, 0), ToyTask(8)
    step = step_of(images, 0, task, task.build("toy"), overwritable=False)

    mixed, sources = one_of.mix_each(images, torch.ones(3), step)

    assert mixed.shape == images.shape
    torch.testing.assert_close(sources.weight.sum(1), torch.ones(7))


def test_a_part_of_the_elements_stays_unmixed() -> None:
    task, images = ToyTask(8), lit(7, (8, 12), 8)
    model, recipe = task.build("toy"), Recipe("toy", 1, 7, mix_mode="elem", mix_prob=0.4)
    shares = []
    for seed in range(40):
        step = step_of(images, seed, task, model)
        step.per_element, step.mixing = True, mixing_of(recipe, seed, 0, 10)
        mixed, sources = mix(load_method(find("method", "mixup"))(), step.images, step)
        assert step.mixing.unmixed is not None
        kept = step.mixing.unmixed
        assert torch.equal(mixed[kept], images[kept])
        assert torch.equal(sources.index[kept][:, 0], torch.arange(7)[kept])
        assert (sources.weight[kept][:, 0] == 1).all()
        shares.append(float(kept.float().mean()))
    assert 0.5 < np.mean(shares) < 0.7


def test_batches_are_unmixed_with_the_recipes_probability_and_at_the_end() -> None:
    method = Recorder()
    recipe = small("deit", epochs=30, mix_prob=0.3, mix_off_epoch=20, auto_augment="")
    train(setup(recipe, method), Memory())

    assert 12 < len(method.seen) < 40  # of 80 steps in the first 20 epochs, 24 on average
    late = [mixing_of(recipe, 0, step, 120).mixes for step in range(80, 120)]
    assert not any(late)


def test_no_mixing_at_all_equals_the_baseline() -> None:
    plain, off = Memory(), Memory()
    recipe = small("deit", auto_augment="")
    train(setup(recipe, load_method(find("method", "none"))()), plain)
    patchmix = load_method(find("method", "random_patchmix"))(patch_loss=False)
    train(setup(replace(recipe, mix_prob=0.0), patchmix), off)

    for name, tensor in plain.kept["epoch-3"].items():
        assert torch.equal(tensor, off.kept["epoch-3"][name]), name


def test_half_of_a_mixed_batch_is_trained_on() -> None:
    recipe, sizes = small("deit", mix_mode="half", auto_augment=""), []

    class Sizes(Recorder):
        def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
            sizes.append((len(output.out), len(sources.index), int(sources.index.max())))
            return super().loss(output, sources, step)

    run = train(setup(recipe, Sizes()), Memory())

    assert {size[:2] for size in sizes} == {(5, 5)}
    assert max(size[2] for size in sizes) > 4  # partners are of the whole batch
    assert run.counters.images == 12 * 5


def test_a_method_that_changes_the_batch_size_is_refused_in_half_batches() -> None:
    class Double(Recorder):
        def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
            mixed, sources = super().mix(x, step)
            return torch.cat([mixed, x]), Sources.of(*(torch.cat([t, t]) for t in sources.tensors))

    with pytest.raises(BadParameter, match="mix_mode must be batch for Double"):
        train(setup(small("deit", mix_mode="half", auto_augment=""), Double()), Memory())


# --- losses


def test_thresholds_apply_to_mixed_targets() -> None:
    """Two classes of 0.85 and 0.15 are not both present above 0.2; a linear loss cannot say so."""
    out, targets = torch.randn(3, 5), torch.tensor([0, 1, 2])
    sources = Sources.pair(torch.tensor([1, 2, 0]), 0.85)
    wanted = torch.nn.functional.one_hot(targets, 5).float()

    loss = mixed_loss(Bce(5, 0.0, 0.2), out, sources, targets)

    expected = BinaryCrossEntropy(smoothing=0)(out, wanted)
    torch.testing.assert_close(loss, expected)


def test_losses_of_recipes_are_refused_for_other_tasks() -> None:
    class Own(Photos):
        def loss(self, out: Tensor, targets: Tensor) -> Tensor:
            return super().loss(out, targets)

    with pytest.raises(UsageError, match="label_smoothing must not be set for Own"):
        criterion(Own(), Recipe("small_test_vit", 1, label_smoothing=0.1))
    with pytest.raises(UsageError, match="bce_loss must not be set for ToyTask"):
        criterion(ToyTask(), Recipe("small_test_vit", 1, bce_loss=True))
    assert criterion(ToyTask(), Recipe("small_test_vit", 1)) is None


# --- augmentation


def pixels(number: int = 6) -> Tensor:
    return torch.randint(256, (number, 3, 24, 32), generator=generator(3, "synthetic")).byte()


def splits(tmp_path: Path) -> Iterator[ResidentSplit | StreamedSplit]:
    images, classes = pixels(), torch.arange(6) % 2
    yield ResidentSplit(images, classes, None, PLAIN, CropFlip(4, flip=0.5))
    for number, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{number}.png")
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    yield StreamedSplit(paths, classes, None, PLAIN, CropFlip(4, flip=0.5), fit=lambda x: x)


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "trivial"])
def test_an_augmented_image_does_not_depend_on_its_batch(policy: str, tmp_path: Path) -> None:
    index = torch.arange(6)
    found = []
    for plain in splits(tmp_path):
        split = with_augmentation(plain, policy, 0.5)
        with unchanged_global_randomness():
            whole = split.read(index, generator(0, "augment"))
        assert isinstance(split, ResidentSplit | StreamedSplit)
        draws = split.draw(6, generator(0, "augment"))
        assert draws is not None
        alone = [
            split.finish(split.fetch(index[i : i + 1], draws[i : i + 1]), draws[i : i + 1])
            for i in range(6)
        ]
        assert torch.equal(whole, torch.cat(alone))
        assert not torch.equal(whole, plain.read(index, generator(0, "augment")))
        assert torch.equal(split.read(index, None), plain.read(index, None))
        found.append(whole)
    assert torch.equal(*found)  # from memory and from files


def test_rand_augment_equals_timms() -> None:
    """For equal states of the generators that timm draws from."""
    policy, image = "rand-m9-mstd0.5-inc1", pixels(1)[0]
    limits = {"translate_const": int(24 * 0.45), "img_mean": (124, 116, 104)}
    theirs, ours = rand_augment_transform(policy, limits), transform_of(policy, (24, 32))
    shown = Image.fromarray(image.permute(1, 2, 0).numpy())
    compared = 0
    for seed in range(60):
        results = []
        for transform in (theirs, ours):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            with suppress(ValueError):  # timm asks Pillow to keep 0 bits
                results.append(np.asarray(transform(shown)))
        if len(results) == 2:
            assert np.array_equal(results[0], results[1])
            compared += 1
    assert compared > 40


def test_erasing_equals_timms() -> None:
    images = torch.randn(6, 3, 24, 32, generator=generator(0, "synthetic"))
    draws = torch.rand(6, generator=generator(0, "augment"))
    expected = images.clone()
    for image, draw in zip(expected, draws.tolist(), strict=True):
        random.seed(int(draw * 2**24))
        torch.manual_seed(int(draw * 2**24))
        RandomErasing(0.7, mode="pixel", device="cpu")(image)

    found = erase(images.clone(), 0.7, draws)

    assert torch.equal(found, expected)
    assert not torch.equal(found, images)


def test_repeated_images_are_in_one_batch_in_random_order() -> None:
    run = begin(setup(small("deit", aug_repeats=3, auto_augment="")))

    order = torch.cat([batch_index(run, step) for step in range(4)])

    assert len(order) == 40
    assert len(order.unique()) == 14
    for batch in order.split(10):
        number = batch.unique(return_counts=True)[1]
        assert len(number) <= 5  # one image may be shared with each neighbouring batch
        assert (batch[1:] != batch[:-1]).sum() > len(number) - 1
    assert not torch.equal(order, torch.cat([batch_index(run, step) for step in range(4, 8)]))


@pytest.mark.parametrize("policy", ["rand", "rand-m", "rand-x9", "augmix", "trivial2"])
def test_unknown_policies_are_refused(policy: str, tmp_path: Path) -> None:
    split = next(splits(tmp_path))
    with pytest.raises(BadParameter, match=re.escape(f"(got {policy!r})")):
        with_augmentation(split, policy, 0.0)


def test_policies_need_colours_and_single_images() -> None:
    grey = ResidentSplit(pixels()[:, :1], torch.arange(6), None, Normalization((0.5,), (0.5,)))
    with pytest.raises(BadParameter, match="images of 1 channel"):
        with_augmentation(grey, "trivial", 0.0)
    with pytest.raises(BadParameter, match="random_erasing must be 0"):
        with_augmentation(ToyTask().load("train", Path(), 0), "", 0.1)


# --- networks


def test_stochastic_depth_keeps_the_initial_weights() -> None:
    def made(rate: float) -> Backbone:
        torch.manual_seed(0)
        model = build("small_test_vit", classes=5, size=(32, 32))
        if rate:
            model.set_drop_path(rate)
        return model

    plain, deep = made(0), made(0.9)
    x = torch.randn(4, 3, 32, 32)

    for one, other in zip(plain.parameters(), deep.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(plain.eval()(x).out, deep.eval()(x).out)
    assert not torch.equal(plain.train()(x).out, deep.train()(x).out)


def test_small_networks_refuse_what_they_do_not_have() -> None:
    model = build("resnet8", classes=5, size=(32, 32))
    for ask, said in (
        (lambda: model.set_drop_path(0.1), "drop_path must be 0"),
        (model.keep_attention, "has no attention maps"),
        (lambda: list(model.depths()), "layer_decay must be 1"),
    ):
        with pytest.raises(UsageError, match=said):
            ask()
    with pytest.raises(UsageError, match="has no attention maps"):
        build("small_test_convnext", classes=5, size=(32, 32)).keep_attention()


@pytest.mark.parametrize(
    "model",
    [
        *("small_test_vit", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"),
        # timm gives the number of their channels other names
        *("levit_128s", "pvt_v2_b0", "visformer_tiny"),
    ],
)
def test_tokens_become_a_map_and_back(model: str) -> None:
    side = 32 if model == "small_test_vit" else 224
    net = build(model, classes=5, size=(side, side)).eval()
    x, maps = torch.randn(1, 3, side, side), []
    x[..., side // 2 :, :] = 1  # the lower half is blank
    plain = net(x).out

    def through(_module: torch.nn.Module, _inputs: object, tokens: Tensor) -> Tensor:
        maps.append(net.to_map(tokens))
        return net.from_map(maps[-1].clone())

    net.get_submodule(net.embedding).register_forward_hook(through)
    assert torch.equal(net(x).out, plain)
    assert maps[0].dim() == 4
    height = maps[0].shape[2]
    blank = maps[0][0, :, height * 3 // 4 : height - 1, 1:-1].flatten(1)  # far from its edges
    torch.testing.assert_close(blank, blank[:, :1].expand_as(blank), rtol=0.2, atol=1.0)
    # Values vary over channels, but hardly over positions.
    assert blank.std(1).mean() < blank.std(0).mean() / 2


@pytest.mark.parametrize("model", ["xcit_nano_12_p16_224", "mvitv2_tiny"])
def test_networks_with_other_embeddings_have_no_site_for_tokens(model: str) -> None:
    assert build(model, classes=5, size=(224, 224)).embedding == ""


def test_attention_without_a_map_is_refused() -> None:
    with pytest.raises(UsageError, match="cait_xxs24_224 has no attention maps: choose a ViT"):
        build("cait_xxs24_224", classes=5, size=(224, 224)).keep_attention()


def test_attention_is_that_of_the_last_block() -> None:
    net = build("vit_tiny", classes=5, size=(32, 32)).eval()
    x = torch.randn(2, 3, 32, 32)
    assert net(x).attention is None
    plain = net(x).out
    net.keep_attention()

    output = net(x)

    torch.testing.assert_close(output.out, plain, rtol=1e-4, atol=1e-5)
    attention: Any = output.attention
    assert attention.shape == (2, 8, 8)
    torch.testing.assert_close(attention.sum((1, 2)), torch.ones(2))
    inner: Any = net.net
    seen: list[Tensor] = []
    inner.blocks[-1].attn.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    net(x)
    attn = inner.blocks[-1].attn
    q, k, _ = attn.qkv(seen[0]).reshape(2, 65, 3, 3, 64).permute(2, 0, 3, 1, 4)
    weights = (q @ k.mT * 64**-0.5).softmax(-1).mean(1)[:, 0, 1:]
    torch.testing.assert_close(
        attention.flatten(1), weights / weights.sum(1, keepdim=True), rtol=1e-4, atol=1e-5
    )


def test_an_optimizer_for_every_name() -> None:
    parameter = [torch.nn.Parameter(torch.zeros(1))]
    made = {
        name: type(make_optimizer([{"params": parameter}], Recipe("net", 1, optimizer=name)))
        for name in OPTIMIZERS
    }
    assert [kind.__name__ for kind in made.values()] == ["SGD", "Adam", "AdamW", "Lamb"]


def test_subjects_know_what_their_methods_need() -> None:
    """The checks of methods offer attention, teachers and an average of the model."""
    subject = Subject(Recorder)
    _, model, task = subject.bound()
    step = step_of(lit(5, (8, 12), 3), 0, task, model)

    assert step.ema is not None
    assert step.teachers["anything"] is not model


def test_a_subclass_states_itself_how_it_mixes() -> None:
    """PatchUp has one λ for all items, although CutMix, from which it inherits, has its own box."""
    for name in ("patchup", "cutmix_16"):
        card = find("method", name)
        assert not card.declared.per_element
        assert not load_method(card).per_element
    card = find("method", "manifold_mixup")
    assert card.declared.per_element
    assert load_method(card).per_element


def test_a_class_that_inherits_is_not_the_recipes_mixing() -> None:
    class Mine(load_method(find("method", "one_of"))):  # type: ignore[misc]
        version = 1

    assert Mine.recipe_of == ()
    assert not Mine.per_element

"""Methods in training loops of the user's own: the same bits, in the forms that loops have."""

import re
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
import torchvision
from timm.data import create_loader  # type: ignore[attr-defined]
from timm.loss import SoftTargetCrossEntropy  # type: ignore[attr-defined]
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

import mixbench
from mixbench.contract import Method, Step
from mixbench.contract.loading import load_method
from mixbench.errors import BadParameter, UnknownName, UsageError
from mixbench.loops.mixed_loss import OwnSplit
from mixbench.registry.units import find, paths
from mixbench.streams import generator
from mixbench.testing import ToyTask
from mixbench.train.loop import batch_index, train
from mixbench.train.schedule import learning_rate
from mixbench.train.setup import Run, begin
from mixbench.vision.models.own_net import OwnNet
from tests.test_training import Silent, setup

PAGE = Path(__file__).parents[1] / "docs/own-loop.md"
TRANSFORMS = (
    *("cutmix", "cutmix_16", "cutout", "fmix", "gridmask", "guidedmix", "hide_and_seek", "mixup"),
    *("none", "one_of", "random_erasing", "resizemix", "saliencymix", "smoothmix"),
)
# They read a trained model, or an average of the model, which only the harness has.
IN_THE_HARNESS = ("adautomix", "attentivemix", "automix", "samix", "tokenmix")
CLASSES, SHAPE = 5, (3, 32, 40)


class Photographs(Dataset[tuple[Tensor, int]]):
    """A data set as torchvision's are."""

    def __init__(self, number: int = 20, shape: tuple[int, int, int] = SHAPE) -> None:
        rng = torch.Generator().manual_seed(3)
        self.images = torch.rand(number, *shape, generator=rng)
        self.targets = [i % CLASSES for i in range(number)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        return self.images[item], self.targets[item]


class Small(nn.Module):
    """A network with three blocks, whose last map has 4 x 5 places."""

    def __init__(self) -> None:
        super().__init__()
        blocks = pairwise((3, 8, 8, 8))
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())
                for a, b in blocks
            )
        )
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x).mean((2, 3)))
        return logits


def vit() -> nn.Module:
    net: nn.Module = timm.create_model(
        "test_vit", num_classes=CLASSES, img_size=SHAPE[1:], patch_size=8
    )
    return net


def batch(number: int = 7) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(number)
    return torch.randn(number, *SHAPE, generator=rng), torch.arange(number) % CLASSES


def mixed_loss(name: str, model: nn.Module, tmp_path: Path, **more: Any) -> mixbench.MixedLoss:
    """Return a method as a loss, with what it needs."""
    scale = (0.5,) * 3, (0.2,) * 3
    options: dict[str, Any] = {"dataset": Photographs(), "normalization": scale}
    if any(p.name == "grid" for p in find("method", name).parameters):
        options["grid"] = 2
    if name == "guided_patchmix":
        options["search"] = found_by_chance(tmp_path)
    return mixbench.MixedLoss(name, model, **{**options, **more})


def found_by_chance(tmp_path: Path) -> Path:
    """Return a search.json for five classes and a grid of 2 x 2."""
    from mixbench.search.result import to_json
    from mixbench.search.space import Space
    from mixbench.search.strategies import random_pairs

    space = Space(CLASSES, 2, CLASSES, same_class=False)
    names = [str(n) for n in range(CLASSES)]
    path = tmp_path / "search.json"
    path.write_text(to_json(random_pairs(space, 0), space, names, {"search": "random"}))
    return path


@pytest.mark.full
def test_torch_is_imported_only_when_it_is_needed() -> None:
    code = "import sys, mixbench; assert 'torch' not in sys.modules; mixbench.transform"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' in sys.modules"], check=True)


@pytest.mark.parametrize("name", paths("method"))
def test_every_method_runs_in_a_loop(name: str, tmp_path: Path) -> None:
    images, labels = batch()
    if name in TRANSFORMS:
        mixed, targets = mixbench.transform(name, num_classes=CLASSES)(images, labels)
        assert mixed.shape == images.shape
        assert targets.sum(1).tolist() == pytest.approx([1.0] * 7)
    else:
        with pytest.raises(UsageError, match=f"{name} cannot be a transform .*mixbench.MixedLoss"):
            mixbench.transform(name, num_classes=CLASSES)(images, labels)
    attends = find("method", name).declared.needs_attention
    model = vit() if attends else Small()
    if name in IN_THE_HARNESS:
        with pytest.raises(UsageError, match="use `mixbench run`"):
            mixed_loss(name, model, tmp_path)
        return
    loss = mixed_loss(name, model, tmp_path)

    value = loss(images, labels)
    value.backward()

    assert value.isfinite()
    assert all(p.grad is not None for p in [*model.parameters(), *loss.parameters()])
    assert loss.predict(images).shape == (7, CLASSES)


def test_a_model_of_timm_keeps_its_maps_and_its_mode() -> None:
    """A ViT has maps of its last tokens; wrapped, it only mixes at the input."""
    model = vit().eval()
    loss = mixbench.MixedLoss("random_patchmix", model, image_shape=SHAPE, grid=2)
    wrapped = nn.Sequential(model)

    value = loss(*batch())

    assert value.isfinite()
    assert not any(module.training for module in model.modules())
    assert mixbench.MixedLoss("cutmix", wrapped, image_shape=SHAPE)(*batch()).isfinite()
    with pytest.raises(UsageError, match="has no feature map after its last layers"):
        mixbench.MixedLoss("random_patchmix", wrapped, image_shape=SHAPE, grid=2)


@pytest.mark.parametrize("name", ["mixup", "cutmix", "fmix", "smoothmix", "resizemix"])
def test_targets_are_the_shares_of_the_images(name: str) -> None:
    """Image i is light in channel i only, so the mean of channel i is the share of class i."""
    images = torch.zeros(6, 6, 24, 32)
    images[range(6), range(6)] = 1

    mixed, targets = mixbench.transform(name, num_classes=6, seed=3)(images, torch.arange(6))

    torch.testing.assert_close(mixed.mean((2, 3)), targets, atol=0.02, rtol=0)
    assert (targets.max(1).values < 1).any()


def test_soft_labels_are_mixed_as_classes_are() -> None:
    images, labels = batch()
    hard = mixbench.transform("mixup", num_classes=CLASSES)(images, labels)
    probabilities = torch.eye(CLASSES)[labels]

    soft = mixbench.transform("mixup", num_classes=CLASSES)(images, probabilities)

    assert torch.equal(hard[0], soft[0])
    assert torch.equal(hard[1], soft[1])


def batches_of(run: Run, steps: int) -> list[tuple[Tensor, Tensor]]:
    """Return the first batches of the harness."""
    indices = [batch_index(run, step) for step in range(steps)]
    return [
        (run.train.read(index, generator(0, "augment", step)), run.train.targets[index])
        for step, index in enumerate(indices)
    ]


@pytest.mark.parametrize("name", ["cutmix", "random_patchmix", "manifold_mixup", "saliencymix"])
def test_a_loop_gives_the_bits_of_the_harness(name: str) -> None:
    made = setup(load_method(find("method", name))())
    harness = train(made, Silent())
    run = begin(setup(load_method(find("method", name))()))
    batches = batches_of(run, run.num_steps)
    mixed = mixbench.MixedLoss(name, run.model, image_shape=(3, *ToyTask().image_size))
    mixed.method = run.setup.method  # with the heads that the optimizer has

    for step, (images, labels) in enumerate(batches):
        loss = mixed(images, labels)
        run.optimizer.zero_grad()
        loss.backward()
        for group in run.optimizer.param_groups:
            group["lr"] = group["speed"] * learning_rate(made.recipe, step, run.num_steps)
        run.optimizer.step()

    trained = [*harness.model.parameters(), *made.method.parameters()]
    for one, other in zip(trained, [*run.model.parameters(), *mixed.parameters()], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_gives_the_bits_of_the_harness(name: str) -> None:
    """Of its mixes, from step to step, also after a checkpoint."""
    images, labels = batch(8)
    method: Method = load_method(find("method", name))()
    mix = mixbench.transform(name, num_classes=CLASSES, seed=4)
    mix(images, labels)
    later = mixbench.transform(name, num_classes=CLASSES, seed=4)
    later.load_state_dict(mix.state_dict())
    task: Any = ToyTask()
    model: Any = nn.Identity()
    step = Step(images.clone(), labels, rng=generator(4, "mix", 1), task=task, model=model)

    expected, sources = method.mix(step.images, step)

    found, targets = later(images, labels)
    assert torch.equal(found, expected)
    shares = torch.eye(CLASSES)[labels][sources.index] * sources.weight[..., None]
    assert torch.equal(targets, shares.sum(1))
    assert torch.equal(mix(images, labels)[0], expected)


def test_the_examples_of_the_page_run() -> None:
    codes = [
        code
        for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        if not re.search("lightning|transformers", code)  # those have tests of their own
    ]
    torch.manual_seed(0)
    train_set, model = Photographs(shape=(3, 64, 96)), torchvision.models.resnet18(num_classes=10)
    there = {
        "train": train_set,
        "model": model,
        "loader": DataLoader(train_set, batch_size=5, shuffle=True),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.05),
    }
    for code in codes:
        exec(code, there)

    assert len(codes) == 2
    assert there["loss"].isfinite()


@pytest.mark.parametrize("how", ["mixup_fn", "collate"])
def test_a_loop_of_timm(how: str) -> None:
    """As timm's train.py has it, without its prefetcher."""
    mixup_fn = mixbench.transform("cutmix", num_classes=CLASSES)
    data_set: Any = Photographs()
    loader = create_loader(
        data_set, input_size=SHAPE, batch_size=6, is_training=True, use_prefetcher=False,
        num_workers=0, collate_fn=mixup_fn.collate if how == "collate" else None,
        persistent_workers=False,
    )  # fmt: skip
    model = timm.create_model("resnet18", num_classes=CLASSES)
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.05)
    train_loss_fn = SoftTargetCrossEntropy()
    losses = []
    for images, labels in loader:
        data, target = (images, labels) if how == "collate" else mixup_fn(images, labels)
        output = model(data)
        loss = train_loss_fn(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert len(losses) == mixup_fn.state_dict()["step"] == 3


@pytest.mark.full
def test_workers_draw_each_their_own_in_every_epoch() -> None:
    mix = mixbench.transform("mixup", num_classes=CLASSES)
    torch.manual_seed(1)
    loader = DataLoader(Photographs(), batch_size=5, collate_fn=mix.collate, num_workers=2)

    targets = [str(target.sort(1).values[:, -1].tolist()) for _ in range(2) for _, target in loader]

    assert len(set(targets)) == 8  # the λ of each batch is its own


@pytest.mark.parametrize("mode", ["float16", "bfloat16"])
def test_it_works_within_autocast(mode: str, tmp_path: Path) -> None:
    model = Small()
    loss = mixed_loss("guided_patchmix", model, tmp_path)

    with torch.autocast("cpu", getattr(torch, mode)):
        value = loss(*batch())
    value.backward()

    assert value.dtype == torch.float32
    assert value.isfinite()


@pytest.mark.slow
def test_a_compiled_model_gives_nearly_the_same(tmp_path: Path) -> None:
    model = Small()
    plain = mixed_loss("random_patchmix", model, tmp_path)
    faster: Any = torch.compile(model)
    compiled = mixed_loss("random_patchmix", faster, tmp_path)
    compiled.method.load_state_dict(plain.method.state_dict())

    torch.testing.assert_close(compiled(*batch()), plain(*batch()))


def test_a_loss_continues_from_a_checkpoint(tmp_path: Path) -> None:
    model = Small().eval()  # without statistics that change
    loss = mixed_loss("guided_patchmix", model, tmp_path)
    loss(*batch())
    later = mixed_loss("guided_patchmix", model, tmp_path)

    later.load_state_dict(loss.state_dict())

    assert torch.equal(later(*batch()), loss(*batch()))


def test_nothing_is_mixed_in_evaluation_mode(tmp_path: Path) -> None:
    model = Small().eval()
    images, labels = batch()
    weights = torch.rand(CLASSES)
    criterion = nn.CrossEntropyLoss(weights)

    value = mixed_loss("cutmix", model, tmp_path, loss=criterion).eval()(images, labels)

    expected = cross_entropy(model(images), labels, weights, reduction="none").mean()
    assert torch.equal(value, expected)
    assert criterion.reduction == "mean"


STAGES = ("layer1", "layer2", "layer3", "layer4")


@pytest.mark.parametrize(
    ("make", "blocks"),
    [
        (torchvision.models.resnet18, STAGES),
        (partial(timm.create_model, "resnet18"), STAGES),
        (torchvision.models.convnext_tiny, [f"features.{n}" for n in (1, 3, 5, 7)]),
        (
            lambda num_classes: nn.Sequential(torchvision.models.resnet18(num_classes=num_classes)),
            [f"0.{name}" for name in STAGES],
        ),
    ],
)
def test_blocks_and_the_last_map_are_found(make: Any, blocks: Sequence[str]) -> None:
    net = make(num_classes=7)
    own = OwnNet(net, (3, 64, 96))
    images = torch.randn(2, 3, 64, 96)

    out, features, _ = own(images)

    assert [name.removeprefix("net.") for name in own.blocks] == [*blocks]
    assert own.feature_size == tuple(features.shape[2:]) == (2, 3)
    assert isinstance(own.classifier, nn.Linear)
    assert out.shape == (2, 7)
    assert net.training


def compiled() -> Any:
    return torch.compile(Small())


def mean_of(out: Tensor, _targets: Tensor) -> Tensor:
    return out.mean()


class NoMap(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(3 * 32 * 40, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.only(x.flatten(1))
        return logits


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: mixbench.transform("cutmux", num_classes=3), "Did you mean 'cutmix'"),
        (lambda: mixbench.transform("cutmix", num_classes=3, beta=1), "beta"),
        (lambda: mixbench.transform("cutmix", num_classes=3, alpha=-1), "alpha"),
        (lambda: mixbench.transform("cutmix", num_classes=0), "num_classes must be at least 1"),
        (lambda: mixbench.transform("cutmix", num_classes=3, seed=cast("int", "a")),
         "seed must be a whole number of at least 0"),
        (lambda: mixbench.transform("fmix", num_classes=3, per_element=True), "one λ per batch"),
        (lambda: mixbench.transform("cutmix", num_classes=3)(*batch()), "labels must be in 0..2"),
        (
            lambda: mixbench.transform("cutmix", num_classes=5)(batch()[0].byte(), batch()[1]),
            "images must be a float tensor",
        ),
        (
            lambda: mixbench.transform("cutmix", num_classes=5)(batch()[0], batch()[1][:3]),
            "labels must be 7 class indices",
        ),
        (lambda: mixbench.MixedLoss("cutmix", Small()), "image_shape must be given"),
        (
            lambda: mixbench.MixedLoss("patchup", compiled(), image_shape=SHAPE),
            "patchup mixes inside the model by hooks",
        ),
        (
            lambda: mixbench.MixedLoss("cutmix", NoMap(), image_shape=SHAPE),
            "NoMap needs a module that returns a feature map",
        ),
        (
            lambda: mixbench.MixedLoss("cutmix", Small(), image_shape=(1, 8, 8)),
            "Small does not take images of the shape",
        ),
        (
            lambda: mixbench.MixedLoss("cutmix", nn.Conv2d(3, 4, 1), image_shape=SHAPE),
            "Conv2d must return logits",
        ),
        (
            lambda: mixbench.MixedLoss("guided_patchmix", Small(), image_shape=SHAPE),
            "give the training data set",
        ),
        (
            lambda: mixbench.MixedLoss("guided_patchmix", Small(), dataset=Photographs()),
            "starts from a trained model, which `mixbench run` provides",
        ),
        (
            lambda: mixbench.MixedLoss("mixup", Small(), mean_of, image_shape=SHAPE)(*batch()),
            "loss must return the loss of each image",
        ),
        (lambda: OwnSplit([1, 2], None, 3), "The data set must have `targets`"),
        (lambda: OwnSplit([1, 2], [0, 3], 3), "targets must be in 0..2"),
        (
            lambda: mixbench.MixedLoss("mixup", Small(), image_shape=SHAPE, features="head"),
            "for `features` .got head; it has: body.0",
        ),
        (
            lambda: mixbench.MixedLoss("mixup", Small(), image_shape=SHAPE, blocks=["nowhere"]),
            "`blocks` of Small must be modules that return a feature map",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(make: Any, said: str) -> None:
    with pytest.raises((UsageError, BadParameter, UnknownName), match=said):
        make()


TWO_PROCESSES = """
import os, sys, torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import mixbench
from tests.test_loops import SHAPE, Small, batch

dist.init_process_group("gloo", init_method="file://" + sys.argv[1],
                        rank=int(sys.argv[2]), world_size=2)
torch.manual_seed(dist.get_rank())
model = DistributedDataParallel(Small())
loss = mixbench.MixedLoss("random_patchmix", model, image_shape=SHAPE, grid=2)
images, labels = batch(8)
rows = slice(dist.get_rank(), None, 2)
loss(images[rows], labels[rows]).backward()
found = torch.cat([p.grad.flatten() for p in [*model.parameters(), *loss.parameters()]])
values = torch.cat([p.detach().flatten() for p in [*model.parameters(), *loss.parameters()]])
for mine in (found, values):
    both = [torch.empty_like(mine) for _ in range(2)]
    dist.all_gather(both, mine)
    assert torch.equal(*both)
    assert mine.abs().sum() > 0
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_processes_share_the_gradients_of_heads(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    words = [sys.executable, "-c", TWO_PROCESSES, str(tmp_path / "meeting")]
    both = [
        subprocess.Popen([*words, str(rank)], cwd=root, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]

    ended = [(process.communicate(timeout=120)[1], process.returncode) for process in both]

    assert [code for _, code in ended] == [0, 0], ended

"""Attacks: equal to their definitions bit for bit, and nothing is left behind."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from mixbench.contract import Backbone, Normalization, Output, Trained
from mixbench.contract.loading import load_method, make_task
from mixbench.declare.attacks import Attack, attacks_of, eps_text, under_attack
from mixbench.errors import DataError, MixbenchError
from mixbench.registry.units import find
from mixbench.train import checkpoints as journal
from mixbench.train.checkpoints import DiskPredictionCache
from mixbench.train.evaluation import predict, predict_each
from mixbench.vision.models.residual import ResidualNet
from mixbench.vision.robustness.adversarial import Attacked
from mixbench.vision.robustness.attacks import (
    PixelModel,
    attacked,
    check_attackable,
    open_to_attacks,
)
from tests.support import Run

PIXELS = Normalization((0.5, 0.4, 0.45), (0.25, 0.2, 0.3))
CLASSES = 5


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(ResidualNet(8, channels=3, classes=CLASSES), Shaken())
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean = 0.1 * torch.randn(norm.num_features)
        norm.weight.data += 0.1 * torch.randn(norm.num_features)
    return net.eval()


class Named(nn.Module):
    """Logits as the output of a backbone."""

    def forward(self, logits: Tensor) -> Output:
        return Output(logits, logits)


class Shaken(nn.Module):
    """A dropout after the logits: in training mode nothing would be the same twice."""

    def forward(self, output: Output) -> Output:
        return Output(F.dropout(output.out, 0.5, self.training), output.features)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    images = torch.randint(256, (7, 3, 12, 16), generator=rng).float() / 255
    return images, torch.randint(CLASSES, (7,), generator=rng)


def read(output: Output) -> Tensor:
    return output.out


def gradient_sign(net: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Return the sign of the gradient of the mean cross-entropy, by the definition."""
    mean, deviation = (torch.tensor(values)[:, None, None] for values in PIXELS)
    x = images.clone().requires_grad_()
    F.cross_entropy(net((x - mean) / deviation).out, classes).backward()
    assert x.grad is not None
    net.zero_grad()
    return x.grad.sign()


@pytest.mark.parametrize("eps", [0.1, 0.3, 8 / 255])
def test_fgsm_is_its_definition_bit_for_bit(
    net: nn.Module, batch: tuple[Tensor, Tensor], eps: float
) -> None:
    images, classes = batch
    expected = (images + eps * gradient_sign(net, images, classes)).clamp(0, 1)

    with open_to_attacks(net):
        found = attacked(PixelModel(net, read, PIXELS), images, classes, Attack("fgsm", eps))

    assert torch.equal(found, expected)
    assert not torch.equal(found, images)


def test_in_normalized_space_a_channel_moves_by_its_deviation(
    net: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    images, classes = batch
    deviation = torch.tensor(PIXELS.std)[:, None, None]
    step = 0.1 * deviation * gradient_sign(net, images, classes)

    with open_to_attacks(net):
        attack = Attack("fgsm", 0.1, "normalized")
        found = attacked(PixelModel(net, read, PIXELS), images, classes, attack)

    assert torch.equal(found, (images + step).clamp(0, 1))


def test_pgd_is_its_definition_bit_for_bit(net: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    images, classes = batch
    eps, steps = 8 / 255, 6
    torch.manual_seed(3)
    expected = (images + torch.empty_like(images).uniform_(-eps, eps)).clamp(0, 1)
    for _ in range(steps):
        moved = expected + eps / 4 * gradient_sign(net, expected, classes)
        expected = (images + (moved - images).clamp(-eps, eps)).clamp(0, 1)

    torch.manual_seed(3)
    with open_to_attacks(net):
        attack = Attack("pgd", eps, steps=steps)
        found = attacked(PixelModel(net, read, PIXELS), images, classes, attack)

    assert torch.equal(found, expected)
    assert (found - images).abs().max() <= eps + 1e-7


def test_the_model_is_left_as_it_was(net: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    next(net.parameters()).requires_grad = False
    flags = [p.requires_grad for p in net.parameters()]
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    with open_to_attacks(net):
        for attack in (Attack("fgsm", 0.1), Attack("pgd", 0.1, steps=2)):
            attacked(PixelModel(net, read, PIXELS), *batch, attack)

    assert not any(module.training for module in net.modules())
    assert [p.requires_grad for p in net.parameters()] == flags
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_model_in_training_is_in_training_afterwards(task: Any, folder: Path) -> None:
    model, method = task.build("resnet8").train(), load_method(find("method", "none"))()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()

    predict(task, model, method, task.load("test", folder, 0))

    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["fgsm", "pgd"])
@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_a_model_that_is_too_sure_for_float32_is_moved(
    kind: Any, scale: float, batch: tuple[Tensor, Tensor]
) -> None:
    """Its cross-entropy has no gradient in float32; at 1e4 none in float64 either."""
    images, _ = batch
    layer = nn.Linear(images[0].numel(), 3)
    with torch.no_grad():
        layer.weight.mul_(scale)
    sure = nn.Sequential(nn.Flatten(), layer, Named())
    model = PixelModel(sure, read, Normalization((0.0,) * 3, (1.0,) * 3))
    classes = model(images).argmax(1)

    moved = attacked(model, images, classes, Attack(kind, 0.1, steps=2))

    assert bool((moved != images).flatten(1).any(1).all())
    assert float((moved - images).abs().max()) == pytest.approx(0.1, abs=1e-6)


def test_a_second_attack_sees_the_same_model(net: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    model = PixelModel(net, read, PIXELS)  # one wrapper for both, as its flag would be turned

    with open_to_attacks(net):
        one, same = (attacked(model, *batch, Attack("fgsm", 0.1)) for _ in range(2))

    assert torch.equal(one, same)


def test_normalising_inside_is_normalising_before(
    net: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    mean, deviation = (torch.tensor(values)[:, None, None] for values in PIXELS)

    inside = PixelModel(net, read, PIXELS)(batch[0])

    assert torch.equal(inside, net((batch[0] - mean) / deviation).out)


class Deaf(Backbone):
    """Looks at its images without letting a gradient through."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.scale = nn.Parameter(torch.ones(CLASSES))

    def forward(self, x: Tensor) -> Output:
        means = x.mean((1, 2, 3))[:, None]
        seen = {
            "detached": means.detach(),
            "constant": means.round(),
            "blind": torch.ones_like(means),
        }
        if self.how == "none":
            return Output((means * self.scale).detach(), x)
        return Output(seen[self.how] * self.scale, x)


@pytest.mark.parametrize("how", ["detached", "constant", "blind", "none"])
def test_a_model_without_gradients_is_refused(how: str, batch: tuple[Tensor, Tensor]) -> None:
    model = PixelModel(Deaf(how), read, PIXELS)

    with torch.enable_grad(), pytest.raises(MixbenchError, match="Deaf gives no gradient"):
        check_attackable(model, *batch)


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_images_outside_of_0_to_1_are_refused(
    net: nn.Module, batch: tuple[Tensor, Tensor], value: float
) -> None:
    images = batch[0].clone()
    images[0, 0, 0, 0] = value

    with pytest.raises(MixbenchError, match=r"must be pixels in \[0, 1\]"):
        check_attackable(PixelModel(net, read, PIXELS), images, batch[1])


def test_every_stored_byte_is_a_pixel_in_0_to_1(task: Any, folder: Path) -> None:
    split = task.load("test", folder, 0)
    split.images = torch.arange(256, dtype=torch.uint8).repeat(12).view(1, 3, 32, 32)

    images = split.read(torch.zeros(1, dtype=torch.int64), None)

    assert images.min() == 0
    assert images.max() == 1
    assert torch.equal((255 * images).round().to(torch.uint8), split.images)


@pytest.fixture(scope="module")
def task() -> Any:
    return make_task(find("task", "cifar10_fgsm"), {"eps": (2 / 255, 0.1), "pgd_steps": 2})


@pytest.fixture(scope="module")
def folder(task: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cifar")
    task.synthesize(path, replace(task.synthetic, train=10, test=4))
    return path


def test_accuracies_are_over_all_images_and_over_the_correct(task: Any) -> None:
    targets = torch.tensor([0, 1, 2, 3])
    columns = [[0, 1, 2, 0], [0, 1, 0, 3], *[[0, 0, 0, 0]] * 3]  # clean, then every attack

    scores = task.score({"attacked": torch.tensor(columns, dtype=torch.int32).T}, targets)

    first = task.attacks[0].name
    assert scores["top1"].value == 75
    assert scores[first].value == 75  # 0, 1 and 3, though 3 is wrong when clean
    assert scores[f"{first}_of_correct"].value == pytest.approx(200 / 3)


def test_of_nothing_correct_nothing_withstands(task: Any) -> None:
    wrong = torch.ones(3, 1 + len(task.attacks), dtype=torch.int32)

    scores = task.score({"attacked": wrong}, torch.zeros(3, dtype=torch.int64))

    assert {score.value for score in scores.values()} == {0.0}


def test_both_spaces_are_reported_at_the_papers_eps() -> None:
    names = [attack.name for attack in attacks_of((0.1, 8 / 255, 0.1), "normalized", (0.5,), 7)]

    assert names == ["fgsm_normalized_0_1", "fgsm_normalized_8_255", "fgsm_0_1", "pgd7_0_5"]


def test_the_first_eps_ranks() -> None:
    (primary,) = (m.name for m in under_attack((4 / 255, 0.2)) if m.primary)

    assert primary == "fgsm_4_255"


def test_the_names_of_different_eps_never_collide() -> None:
    eps = [0.1, 0.1 + 1e-14, 1e-13, 2e-13, 8 / 255, 0.031, 0.8255, *np.linspace(0.001, 1, 999)]

    assert len({Attack("fgsm", number).name for number in eps}) == len(set(eps))


@pytest.mark.parametrize(
    ("eps", "text"), [(0.1, "0.1"), (51 / 255, "0.2"), (8 / 255, "8/255"), (1.0, "1"),
                      (0.0123, "0.0123"), (1e-5, "0.00001"), (0.123456, "0.123456")],
)  # fmt: skip
def test_eps_are_named_as_people_write_them(eps: float, text: str) -> None:
    assert eps_text(eps) == text


@pytest.mark.parametrize(
    ("given", "said"),
    [("-0.1", "must be greater than 0"), ("0.1,abc", "must be a valid number"),
     ("0.1,300/255", "must be less than or equal to 1"), ("", "must have a value"),
     ("nan", "must be")],
)  # fmt: skip
def test_an_eps_that_is_none_is_refused(mixbench: Run, given: str, said: str) -> None:
    done = mixbench("plan", "-m", "none", "-t", "cifar10_fgsm", "--protocol", "quick",
                    "--set", f"cifar10_fgsm.eps={given}")  # fmt: skip

    assert done.returncode == 2
    assert done.stderr.startswith("error: cifar10_fgsm.eps ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_weights_of_other_classes_are_refused(task: Any, tmp_path: Path) -> None:
    other = ResidualNet(8, channels=3, classes=7)
    torch.save(other.state_dict(), tmp_path / "seven.pth")
    task.weights = str(tmp_path / "seven.pth")

    with pytest.raises(DataError, match=r"have other classes: classifier.weight must .*10 classes"):
        task.start(task.build("resnet8"), {})


def test_weights_of_a_file_are_taken_whole(task: Any, tmp_path: Path) -> None:
    given, model = task.build("resnet8"), task.build("resnet8")
    torch.save(given.state_dict(), tmp_path / "given.pth")
    task.weights = str(tmp_path / "given.pth")

    task.start(model, {})

    state = model.state_dict()
    assert all(torch.equal(state[name], t) for name, t in given.state_dict().items())


class Stop(Exception):
    """The process ends."""


@pytest.fixture
def keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions are stored after every batch, and there are several."""
    monkeypatch.setattr(journal, "FLUSH_EVERY_S", 0)
    monkeypatch.setattr(Attacked, "evaluation_batch", 9)


@pytest.mark.usefixtures("keeping")
def test_an_interrupted_attack_goes_on_and_ends_the_same(
    task: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = [Trained(task.build("resnet8"), load_method(find("method", "none"))())]
    split = task.load("test", folder, 0)
    expected = predict(task, *trained[0], split)["attacked"]
    reports: list[int] = []

    def tell(done: int, of: int) -> None:
        assert of == 5  # batches of 40 images
        reports.append(done)
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        predict_each(task, trained, split, caches=[DiskPredictionCache(tmp_path)], report=tell)
    damaged = next(path for path in tmp_path.iterdir() if "1.attacked" in load_file(path))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    calls: list[int] = []
    plain = type(task).predict

    def counted(*given: Any) -> Any:
        calls.append(len(given[3]))
        return plain(*given)

    monkeypatch.setattr(type(task), "predict", counted)
    (predictions,) = predict_each(task, trained, split, caches=[DiskPredictionCache(tmp_path)])
    found = predictions["attacked"]

    assert torch.equal(found, expected)
    assert calls == [9, 9, 4]  # the damaged one, and the two that were not done
    assert reports == [1, 2, 3]


def test_weights_that_training_left_are_taken(task: Any, tmp_path: Path) -> None:
    given, model = task.build("mobilenet_v2"), task.build("mobilenet_v2")
    state = {f"model.{name}": tensor for name, tensor in given.state_dict().items()}
    save_file({**state, "method.head": torch.ones(2)}, tmp_path / "epoch-3.safetensors")
    task.weights = str(tmp_path / "epoch-3.safetensors")

    task.start(model, {})

    found = model.state_dict()
    assert all(torch.equal(found[name], t) for name, t in given.state_dict().items())


TINY = (
    *("--protocol", "quick", "--set", "cifar10.classes=3", "--set", "cifar10.epochs=1"),
    *("--set", "cifar10_fgsm.eps=1/255,0.1", "--set", "cifar10_fgsm.pgd_steps=2"),
)


def records(store: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(store.glob("records/*/*/*.json"))]


@pytest.mark.full
def test_one_training_serves_the_task_and_its_attacks(mixbench: Run, tmp_path: Path) -> None:
    done = mixbench("run", "-m", "mixup", "-t", "cifar10,cifar10_fgsm", *TINY)

    assert done.returncode == 0, done.stderr
    plain, under = records(tmp_path / "store")
    trained = [s["key"] for s in plain["stages"] if s["kind"] == "train"]
    assert [s["key"] for s in under["stages"] if s["kind"] == "train"] == trained
    assert [s["own"] for s in under["stages"] if s["kind"] == "train"] == [False]
    values = {m["name"]: m["value"] for m in under["metrics"]}
    clean = next(m for m in plain["metrics"] if m["name"] == "top1" and m["at"] == "last")
    assert values["top1"] == pytest.approx(clean["value"], abs=0.4)  # of 300 images
    assert values["fgsm_0_1"] < values["top1"]
    assert {m["at"] for m in under["metrics"]} == {"last"}
    assert under["recipe"]["epochs"] == 1
    assert under["cost"]["images"] == plain["cost"]["images"]
    assert "fgsm_1_255 (%)" in done.stdout
    assert "of_correct" not in done.stdout

"""Backbones: their sizes against the literature, and timm's by their names."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import get_model, list_models

from mixbench.contract import Backbone, Normalization, Output
from mixbench.errors import DataError, UnknownName, UsageError
from mixbench.plan.models import named
from mixbench.plan.request import Request, cells_of
from mixbench.registry.fingerprint import digest
from mixbench.registry.model_names import timm_models, torchvision_models
from mixbench.registry.parameters import read_settings
from mixbench.vision.images.splits import IMAGENET_NORMALIZATION
from mixbench.vision.models import weights as module
from mixbench.vision.models.build import SMALL, build
from mixbench.vision.models.timm_models import TimmNet, normalization_of, timm_net
from mixbench.vision.models.weights import start_from
from tests.fake_hub import COMMIT, serving
from tests.support import each

# Of the authors, where they give one; for ten classes on 32 x 32 pixels.
PUBLISHED = {
    "resnet20": 0.27,  # He et al., arXiv:1512.03385, table 6
    "resnet32": 0.46,
    "resnet44": 0.66,
    "resnet56": 0.85,
    "preact_resnet164": 1.7,  # He et al., arXiv:1603.05027, table 4 and its code
    "mobilenet_v2": 2.24,  # Sandler et al., arXiv:1801.04381: 3.4 with the 1.28 of ImageNet's head
    "resnet50": 23.5,  # He et al.: 25.6 with the 2.05 of ImageNet's head
}
SIZED = {**dict.fromkeys(SMALL, 32), "convnext_atto": 64, "vit_tiny_patch16_224": 64}


def small(name: str, size: int = 32) -> Backbone:
    return build(name, classes=10, size=(size, size), small=True)


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_the_published_ones(name: str) -> None:
    millions = sum(p.numel() for p in small(name).parameters()) / 1e6

    assert millions == pytest.approx(PUBLISHED[name], rel=0.03)


@pytest.mark.parametrize(
    ("name", "layers"), [("resnet32", 32), ("preact_resnet56", 56), ("preact_resnet164", 164)]
)
def test_depths_are_what_the_names_say(name: str, layers: int) -> None:
    """Layers with weights, without those of shortcuts."""
    modules = small(name).named_modules()
    kept = [n for n, m in modules if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in n]

    assert len(kept) == layers


@pytest.mark.parametrize("name", SIZED)
def test_a_model_shows_its_features_blocks_and_classifier(name: str) -> None:
    size = SIZED[name]
    model = small(name, size).eval()

    with torch.no_grad():
        output = model(torch.zeros(2, 3, size, size))

    assert isinstance(output, Output)
    assert output.out.shape == (2, 10)
    assert output.features.shape == (2, model.feature_dim, *model.feature_size)
    assert all(model.get_submodule(block) for block in model.blocks)
    assert isinstance(model.get_submodule("classifier"), nn.Linear)


@pytest.mark.parametrize(
    "name", each(["resnet18", "convnext_atto", "vit_tiny_patch16_224", "vgg11"], "resnet18")
)
def test_timm_models_predict_what_timm_predicts(name: str) -> None:
    model = build(name, classes=7, size=(64, 64), small=False).eval()
    options: dict[str, Any] = {"img_size": 64} if name.startswith("vit") else {}
    theirs = timm.create_model(name, num_classes=7, **options).eval()
    theirs.load_state_dict({n.removeprefix("net."): t for n, t in model.state_dict().items()})
    images = torch.randn(2, 3, 64, 64)

    with torch.no_grad():
        torch.testing.assert_close(model(images).out, theirs(images))


def test_features_of_a_map_are_what_is_pooled() -> None:
    model = build("resnet18", classes=7, size=(64, 64), small=False).eval()

    with torch.no_grad():
        output = model(torch.randn(2, 3, 64, 64))
        pooled = model.get_submodule("classifier")(output.features.mean((2, 3)))

    torch.testing.assert_close(pooled, output.out)


def test_tokens_lie_on_their_grid() -> None:
    """A change in one corner of the image changes that corner of the untrained map the most."""
    model = build("vit_tiny_patch16_224", classes=7, size=(64, 64), small=False).eval()
    images = torch.zeros(1, 3, 64, 64)
    changed = images.clone()
    changed[..., :16, 48:] = 3

    with torch.no_grad():
        gap = (model(changed).features - model(images).features).abs().sum(1)[0]

    assert gap.shape == (4, 4)
    assert int(gap.argmax()) == 3


def test_a_model_that_does_not_take_the_size_says_so() -> None:
    with pytest.raises(UsageError, match="inception_v3 does not take images of 32 x 32 pixels"):
        small("inception_v3")


NAME = "tf_efficientnet_lite0"  # trained with a mean and standard deviation of 0.5
HALVES = [[0.5] * 3, [0.5] * 3]


def lite(name: str = NAME) -> TimmNet:
    return timm_net(name, 7, 3, (64, 64)).eval()


def converts(model: TimmNet) -> None:
    """Check that a model sees what its network expects of images with ImageNet's normalisation."""
    pixels = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(v)[:, None, None] for v in IMAGENET_NORMALIZATION)
    assert model.normalization is not None
    assert model.normalization[2:].tolist() == HALVES
    expected = model.net((pixels - 0.5) / 0.5)
    torch.testing.assert_close(model((pixels - mean) / std).out, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weights", ["timm", "timm:in1k", "file"])
def test_timms_weights_see_images_as_in_their_training(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, theirs = lite(), lite()
    monkeypatch.setattr(module, "timm_weights", lambda _model, _tag: theirs.net.state_dict())
    if weights == "file":
        weights = str(tmp_path / "weights.safetensors")
        save_file(theirs.net.state_dict(), weights)

    start_from(model, weights, {})

    converts(model)


def test_the_usual_normalisation_is_not_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lite("resnet18")
    monkeypatch.setattr(module, "timm_weights", lambda _model, _tag: model.net.state_dict())

    start_from(model, "timm", {})

    assert model.normalization is None
    assert not any("normalization" in name for name in model.state_dict())


@pytest.mark.parametrize("converted", [True, False])
@pytest.mark.parametrize("way", ["file", "needed cell", "checkpoint of the same training"])
def test_what_a_run_has_trained_keeps_its_normalisation(
    converted: bool, way: str, tmp_path: Path
) -> None:
    trained, model = lite(), lite()
    if converted:
        trained.convert(IMAGENET_NORMALIZATION, Normalization((0.5,) * 3, (0.5,) * 3))
    path = str(tmp_path / "weights.safetensors")
    save_file({f"model.{name}": tensor for name, tensor in trained.state_dict().items()}, path)

    if way == "file":
        start_from(model, path, {})
    elif way == "needed cell":
        start_from(model, "pretrained", {"pretrained": trained})
    else:
        model.load_state_dict(trained.state_dict())

    if converted:
        converts(model)
    assert (model.normalization is not None) == converted


def test_a_tag_that_timm_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match=r"timm has no weights tf_efficientnet_lite0\.nosuch"):
        normalization_of(NAME, "nosuch")


def test_the_key_of_timms_weights_has_timms_version() -> None:
    request = Request(
        ["none"], ["cub"], [0], model="resnet18", data="synthetic", init="timm",
        settings=read_settings(["cub.mix_in=finetune"]),
    )  # fmt: skip
    (cell,) = cells_of(request)

    assert cell.task.identifying_parameters["weights"] == f"timm of {timm.__version__}"
    assert cell.task.replaced == {"weights": "timm"}


def test_the_names_of_libraries_models_are_known_without_them() -> None:
    assert timm_models() == frozenset(timm.list_models())
    assert torchvision_models() == frozenset(list_models(module=torchvision.models))


OWN = """
from torch import nn

def layer(before, after):
    return nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU())

def build(num_classes):
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(layer(3, 8), layer(8, 16), *pooled, nn.Linear(16, num_classes))
"""
TRIAL = ("-t", "cifar10", "--protocol", "quick", "--limit", "100", "--max-steps", "1")


@pytest.mark.full
def test_a_model_of_the_users_own_is_a_file(mixbench: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "my net.py"
    path.write_text(OWN)
    run = ("run", "-m", "none", *TRIAL, "--model", "./my net.py")

    first = mixbench(*run)
    path.write_text(f"# a comment{OWN}")
    same = mixbench(*run)
    path.write_text(OWN.replace("16", "24"))
    other = mixbench(*run)

    assert (first.returncode, same.returncode, other.returncode) == (0, 0, 0), first.stderr
    assert ", 0 to run" in same.stderr
    assert ", 0 to run" not in other.stderr
    trained = list((tmp_path / "store/records/cifar10/none").glob("my_net_*.json"))
    assert len(trained) == 2


def test_code_beside_a_file_is_part_of_its_model(tmp_path: Path) -> None:
    path, helper = tmp_path / "net.py", tmp_path / "parts/layers.py"
    helper.parent.mkdir()
    helper.write_text("from torch import nn\n\nSIZE = 3\n")
    (tmp_path / "unrelated.py").write_text("X = 1\n")
    path.write_text(OWN.replace("from torch import nn", "from parts.layers import SIZE, nn"))
    first = named(str(path), (), "cifar10").name

    net = build(str(path), classes=10, size=(32, 32))
    (tmp_path / "unrelated.py").write_text("X = 2\n")
    same = named(str(path), (), "cifar10").name
    helper.write_text("from torch import nn\n\nSIZE = 5\n")
    digest.cache_clear()

    assert net(torch.zeros(2, 3, 32, 32)).out.shape == (2, 10)
    assert first == same != named(str(path), (), "cifar10").name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("vit_b_16", "has no feature map after its last layers"),
        ("inception_v3", "cannot be trained on images of 96 x 96 pixels"),
    ],
)
def test_networks_of_torchvision_that_do_not_fit_are_refused(name: str, says: str) -> None:
    side = 224 if name == "vit_b_16" else 96

    with pytest.raises(UsageError, match=says):
        build(f"torchvision.{name}", classes=10, size=(side, side))


def test_channels_last_are_no_maps() -> None:
    net = build("torchvision.swin_t", classes=10, size=(64, 64))

    assert (net.feature_dim, net.feature_size) == (768, (2, 2))
    assert net.blocks == ()


@pytest.mark.parametrize("architecture", ["../../evil", "/tmp/evil.py", "resnet10000", 3])
def test_architectures_that_timm_does_not_have_are_refused(
    architecture: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"architecture": architecture}))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(path))

    with pytest.raises(UsageError, match="is a model that timm does not have"):
        named(f"hf-hub:org/net@{architecture}", (), "cifar10")


def test_weights_of_the_hub_are_pinned_to_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_hub(asked: str) -> tuple[str, str]:
        return "resnet18", f"{asked}@{COMMIT}"

    monkeypatch.setattr("mixbench.plan.request.of_hub", of_hub)
    for task in ("cifar10", "cifar10_fgsm"):
        request = Request(["none"], [task], [0], init="hf-hub:a/b", model="resnet18")
        (cell,) = cells_of(replace(request, without_data=True))
        assert cell.task.identifying_parameters["weights"] == f"hf-hub:a/b@{COMMIT}"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("build = 3", "must define a function build(num_classes)"),
        ("def build(n):", "must be a Python file"),
        ("import no_such_module", "importing it raises ModuleNotFoundError"),
        ("def build(n): return 1 / 0", "build(10) raises ZeroDivisionError"),
        ("def build(n): return n", "must return a torch.nn.Module (got int)"),
        (
            "from torch.nn import *\ndef build(n): return Sequential(Flatten(), Linear(3072, n))",
            "needs a module that returns a feature map",
        ),
        (OWN.replace("16, num_classes)", "16, 12)"), "must return as many logits (got 12)"),
    ],
)  # fmt: skip
def test_a_file_that_builds_no_model_is_told_in_a_sentence(
    code: str, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "net.py"
    path.write_text(code)

    def built() -> None:
        named(str(path), (), "cifar10")
        build(str(path), classes=10, size=(32, 32))

    with pytest.raises(UsageError) as caught:
        built()

    assert says in str(caught.value)
    assert str(path) in str(caught.value) or "Sequential" in str(caught.value)


def test_names_mean_models_of_libraries_with_and_without_weights() -> None:
    def asked(name: str) -> tuple[str, str]:
        model = named(name, ("resnet8",), "cifar10")
        return model.name, model.weights

    assert asked("resnet8") == ("resnet8", "")
    assert asked("resnet18") == ("resnet18", "")
    assert asked("resnet18.a1_in1k") == ("resnet18", "timm:a1_in1k")
    assert asked("torchvision.resnet18") == ("torchvision.resnet18", "")
    assert asked("shufflenet_v2_x0_5") == ("torchvision.shufflenet_v2_x0_5", "")
    for wrong, meant in (("resnet19", "resnet10t"), ("shufflnet_v2_x0_5", "shufflenet_v2_x0_5")):
        with pytest.raises(UnknownName, match=f"Did you mean '{meant}'|Did you mean 'resnet"):
            asked(wrong)


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5", "swin_t"])
def test_models_of_torchvision_are_backbones_and_take_files(name: str, tmp_path: Path) -> None:
    net = build(f"torchvision.{name}", classes=7, size=(64, 64))
    theirs = get_model(name, weights=None, num_classes=5)
    torch.save(theirs.state_dict(), tmp_path / "net.pth")

    start_from(net, str(tmp_path / "net.pth"), {})

    out, features, _ = net.eval()(torch.zeros(2, 3, 64, 64))
    assert out.shape == (2, 7)
    assert features.shape == (2, net.feature_dim, *net.feature_size)
    inner = net.get_submodule("net")
    same = [
        inner.state_dict()[key].equal(tensor)
        for key, tensor in theirs.state_dict().items()
        if inner.state_dict()[key].shape == tensor.shape
    ]
    assert len(same) > 10
    assert all(same)
    with pytest.raises(UsageError, match="timm has no weights of OwnNet"):
        start_from(net, "timm", {})


@pytest.mark.slow
def test_a_model_of_the_hub_comes_with_its_weights_and_normalisation(
    mixbench_process: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, folder = timm.create_model("test_resnet", num_classes=3), tmp_path / "hub/org/net"
    folder.mkdir(parents=True)
    cfg = {"architecture": "test_resnet", "num_classes": 3, "pretrained_cfg": {
        "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "num_classes": 3,
    }}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(cfg))
    save_file(net.state_dict(), folder / "model.safetensors")
    run = ("run", "-m", "none", *TRIAL, "--set", "cifar10.lr=1e-20")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))

    with serving(tmp_path / "hub") as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        done = mixbench_process(*run, "--model", "hf-hub:org/net")
        absent = mixbench_process(*run, "--model", "hf-hub:org/other")

    assert done.returncode == 0, done.stderr
    assert f"weights=hf-hub:org/net@{COMMIT}" in done.stdout
    assert "mean 0.1, 0.2, 0.3; std 0.4, 0.5, 0.6" in done.stdout
    (kept,) = (tmp_path / "store/stages").glob("*/weights/epoch-1.safetensors")
    trained = load_file(kept)
    assert trained["model.net.conv1.0.weight"].allclose(net.state_dict()["conv1.0.weight"])
    assert absent.returncode == DataError.exit_code
    assert "hf-hub:org/other cannot be had from the Hugging Face Hub: 404" in absent.stderr
    assert "Traceback" not in absent.stderr

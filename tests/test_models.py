"""Backbones: their sizes against the literature, and timm's by their names."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from mixbench.contract import Backbone, Output
from mixbench.errors import UsageError
from mixbench.plan.request import Request, cells_of
from mixbench.registry.parameters import read_settings
from mixbench.registry.timm_names import timm_models
from mixbench.vision.images.splits import IMAGENET_NORMALIZATION, Normalization
from mixbench.vision.models import weights as module
from mixbench.vision.models.build import SMALL, build
from mixbench.vision.models.timm_models import TimmNet, normalization_of, timm_net
from mixbench.vision.models.weights import start_from
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


def test_the_names_of_timms_models_are_known_without_timm() -> None:
    assert timm_models() == frozenset(timm.list_models())

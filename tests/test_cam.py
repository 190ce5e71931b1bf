"""Maps of where a class is, and the scores of pixels that they become."""

import cv2
import numpy as np
import pytest
import torch

from mixbench.contract import check_maps, class_maps
from mixbench.errors import Diverged, UsageError
from mixbench.vision.localization.cam import score_maps
from mixbench.vision.models.build import build


def test_a_map_is_the_classifiers_view_of_every_point() -> None:
    """Its mean, with the bias, is the logit, where the classifier takes the mean of the points."""
    model = build("resnet8", classes=5, size=(24, 36), small=True).eval()
    classes = torch.tensor([4, 0, 2])

    output = model(torch.randn(3, 3, 24, 36))
    maps = class_maps(model, output.features, classes)

    depth: int = model.feature_dim
    bias = model.get_submodule("classifier").bias[classes]  # type: ignore[index]
    logits = output.out[torch.arange(3), classes]
    assert maps.shape == (3, *model.feature_size)
    torch.testing.assert_close(maps.mean((1, 2)) * depth + bias, logits)


def test_negative_parts_stay() -> None:
    model = build("resnet8", classes=2, size=(16, 16), small=True)
    features = torch.randn(1, 64, 4, 4)

    maps = class_maps(model, features, torch.tensor([1]))

    assert bool((maps < 0).any())
    assert bool((maps > 0).any())


@pytest.mark.parametrize("points", [(7, 7), (14, 14), (28, 28)])
def test_maps_are_enlarged_as_opencv_does(points: tuple[int, int]) -> None:
    maps = torch.randn(4, *points, generator=torch.Generator().manual_seed(0))
    theirs = np.stack([
        cv2.resize(m.astype(np.float64), (224, 224), interpolation=cv2.INTER_CUBIC)
        for m in maps.numpy()
    ])
    theirs -= theirs.min((1, 2), keepdims=True)
    theirs /= theirs.max((1, 2), keepdims=True)

    ours = score_maps(maps, 224)

    np.testing.assert_allclose(ours, theirs, atol=1e-13)
    assert ((ours * 255).astype(np.uint8) == (theirs * 255).astype(np.uint8)).all()
    assert (ours.max((1, 2)) == 1).all()
    assert (ours.min((1, 2)) == 0).all()


def test_a_map_without_differences_becomes_0() -> None:
    maps = torch.stack([torch.full((3, 4), -2.5), torch.arange(12.0).view(3, 4)])

    flat, steep = score_maps(maps, 10)

    assert not flat.any()
    assert steep.max() == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_map_that_is_not_finite_is_no_silent_0(value: float) -> None:
    maps = torch.zeros(3, 2, 5)
    maps[1, 0, 4] = value

    with pytest.raises(Diverged, match=r"map of image 1 is not finite \(1 of 3 maps\)"):
        score_maps(maps, 10)


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224", "densenet121"])
def test_any_net_with_a_map_will_do(name: str) -> None:
    """A transformer's tokens are one."""
    model = build(name, classes=3, size=(64, 64), small=False)

    check_maps(model, name)


def test_a_net_without_a_map_says_so() -> None:
    one_point = build("resnet18", classes=3, size=(32, 32), small=False)
    with pytest.raises(UsageError, match=r"resnet18 gives no class.* last features are 1 x 1"):
        check_maps(one_point, "resnet18")

    between = build("mobilenetv3_small_050", classes=3, size=(64, 64), small=False)
    with pytest.raises(UsageError, match=r"its classifier takes 1024 features.* has 288"):
        check_maps(between, "mobilenetv3_small_050")

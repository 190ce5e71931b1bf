"""Nets with large maps, against torchvision's, whose weights they start from."""

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from mixbench.errors import DataError
from mixbench.vision.models.build import build
from mixbench.vision.models.large_map import LARGE_MAP, LargeMapNet
from mixbench.vision.models.weights import start_from
from tests.support import each

PARAMETERS = {"resnet50": 23_917_832, "vgg16": 19_639_304, "inception_v3": 25_687_976}


@pytest.fixture(scope="module", params=each(LARGE_MAP, "resnet50"))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def published(name: str) -> nn.Module:
    """Return torchvision's net with weights that nobody trained."""
    options = {"init_weights": False} if name != "resnet50" else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net: nn.Module = getattr(torchvision.models, name)(weights=None, **options)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
    return net.eval()


def test_sizes_are_those_of_the_reference(name: str) -> None:
    """Measured on clovaai/wsolevaluation@96f4b88 for 200 classes and images of 224 pixels."""
    for large, side in ((True, 28), (False, 14)):
        net = LARGE_MAP[name](200, large=large).eval()
        with torch.no_grad():
            output = net(torch.zeros(1, 3, 224, 224))

        assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]
        assert output.features.shape[2:] == (side, side)
        assert output.out.shape == (1, 200)


def test_trunks_start_from_torchvisions_weights(name: str, tmp_path: Path) -> None:
    """The convolutions before any changed stride or padding give what torchvision's give."""
    theirs, ours = published(name), LARGE_MAP[name](7, large=True).eval()
    path = tmp_path / "weights.pth"
    torch.save(theirs.state_dict(), path)

    start_from(ours, str(path), {})

    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        if name == "vgg16":
            wanted, got = theirs.features[:23](images), ours.trunk[:23](images)  # type: ignore[index, operator]
        elif name == "resnet50":
            wanted, got = first_stages(theirs, images), first_stages(ours.trunk, images)
        else:
            images = torch.randn(1, 288, 9, 9)
            wanted = theirs.get_submodule("Mixed_5d")(images)
            got = ours.trunk.get_submodule("Mixed_5d")(images)
    torch.testing.assert_close(got, wanted)
    own = ours.trunk.state_dict()
    shared = [t for n, t in theirs.state_dict().items() if n in own]
    expected = [t for n, t in own.items() if n in theirs.state_dict()]
    assert all(torch.equal(a, b) for a, b in zip(shared, expected, strict=True))


def first_stages(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return what a ResNet makes of images up to its second stage."""
    for name, module in net.named_children():
        images = module(images)
        if name == "layer2":
            break
    return images


def test_its_own_convolutions_and_norms_start_afresh() -> None:
    net = LARGE_MAP["resnet50"](5, large=True)

    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(bool((norm.weight == 1).all()) for norm in norms)
    assert float(net.classifier.weight.detach().std()) == pytest.approx(0.01, rel=0.05)


def test_what_learns_fast_is_there(name: str) -> None:
    net: LargeMapNet = LARGE_MAP[name](5, large=True)

    assert all(net.get_submodule(part) for part in (*net.head_modules, *net.blocks))
    assert ("trunk.layer4" in net.head_modules) == (name == "resnet50")


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(build("resnet18", classes=3, size=(64, 64), small=False).state_dict(), path)

    with pytest.raises(DataError, match=r"other.safetensors do not fit this model: "):
        start_from(LARGE_MAP["resnet50"](5, large=True), str(path), {})


def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    for content in (b"", b"not weights", b"PK\x03\x04 broken"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"weights.pth cannot be read"):
            start_from(LARGE_MAP["vgg16"](5, large=True), str(path), {})
    for nothing in ([1, 2], {"state_dict": [1]}, {"state_dict": None}, {"a": 3}, torch.zeros(3)):
        torch.save(nothing, path)
        with pytest.raises(DataError, match="must be a dict of named tensors"):
            start_from(LARGE_MAP["vgg16"](5, large=True), str(path), {})
    for strange in (torch.zeros(3, dtype=torch.complex64), torch.zeros(3, device="meta")):
        torch.save({"a": strange}, path)
        with pytest.raises(DataError, match="must be dense real tensors: a is"):
            start_from(LARGE_MAP["vgg16"](5, large=True), str(path), {})


def test_timms_models_take_all_but_their_classifier(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    theirs = build("resnet18", classes=9, size=(64, 64), small=False)
    ours = build("resnet18", classes=4, size=(64, 64), small=False)
    before = ours.get_submodule("classifier").weight.clone()  # type: ignore[operator]
    save_file({n.removeprefix("net."): t for n, t in theirs.state_dict().items()}, path)

    start_from(ours, str(path), {})

    own = ours.state_dict()
    for name, tensor in theirs.state_dict().items():
        assert "fc" in name or torch.equal(own[name], tensor)
    assert torch.equal(ours.get_submodule("classifier").weight, before)  # type: ignore[arg-type]


def test_a_finished_cells_model_gives_all_but_its_classifier() -> None:
    theirs = build("resnet8", classes=9, size=(16, 16), small=True)
    ours = build("resnet8", classes=4, size=(16, 16), small=True)

    start_from(ours, "pretrained", {"pretrained": theirs})

    own, other = ours.state_dict(), theirs.state_dict()
    same = {name for name in own if torch.equal(own[name], other[name])}
    assert same == own.keys() - {"classifier.weight", "classifier.bias"}


def test_layouts_of_data_parallel_training_are_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    theirs = build("resnet18", classes=9, size=(64, 64), small=False).state_dict()
    renamed = {n.replace("net.", "module."): t for n, t in theirs.items()}
    torch.save({"epoch": 3, "state_dict": renamed, "best_err1": 1.0}, path)
    ours = build("resnet18", classes=4, size=(64, 64), small=False)

    start_from(ours, str(path), {})

    name = "net.layer4.1.conv2.weight"
    assert torch.equal(ours.state_dict()[name], theirs[name])


def test_the_first_that_do_not_fit_are_listed() -> None:
    theirs = build("resnet8", classes=9, size=(16, 16), small=True, channels=1)
    ours = build("resnet20", classes=9, size=(16, 16), small=True)

    with pytest.raises(DataError) as raised:
        start_from(ours, "pretrained", {"pretrained": theirs})

    said = str(raised.value)
    assert "stem.0.weight must have the shape (16, 3, 3, 3) (got (16, 1, 3, 3))" in said
    assert "layer1.1.conv1.weight" in said
    assert "more" in said


def test_code_in_a_file_of_weights_is_not_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "run",))  # type: ignore[return-value]

    path = tmp_path / "weights.pth"
    torch.save({"conv1.weight": Hostile()}, path)

    with pytest.raises(DataError, match="cannot be read"):
        start_from(build("resnet8", classes=3, size=(16, 16), small=True), str(path), {})

    assert not (tmp_path / "run").exists()

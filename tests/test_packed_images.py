"""Packed images: the same pixels as resized files, resumable, and refused where they do not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mixbench.contract import ClassIndex
from mixbench.errors import DataError
from mixbench.streams import generator
from mixbench.train.loading import Request, batches
from mixbench.vision.images import packs
from mixbench.vision.images.augment import ResizedCropFlip, central
from mixbench.vision.images.decode import read_image
from mixbench.vision.images.packs import Pack, shortened, write_pack
from mixbench.vision.images.splits import IMAGENET_NORMALIZATION, StreamedSplit
from tests.support import Run

SIZES = ((40, 60), (60, 40), (24, 90), (20, 20), (33, 51), (41, 40), (64, 64))


@pytest.fixture
def files(tmp_path: Path, rng: torch.Generator) -> list[Path]:
    """Photographs of several sizes, the last of them smaller than the packed ones."""
    paths = []
    for number, (height, width) in enumerate(SIZES):
        path = tmp_path / "train" / f"n{number % 3}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = torch.randint(256, (height // 4, width // 4, 3), generator=rng, dtype=torch.uint8)
        Image.fromarray(small.numpy()).resize((width, height)).save(path)
        paths.append(path)
    return paths


def silent(_done: int, _of: int) -> None:
    pass


def test_packed_pixels_are_those_of_the_resized_files(tmp_path: Path, files: list[Path]) -> None:
    write_pack(tmp_path, files, 32, "now", silent)

    pack = Pack(tmp_path, 32)

    assert pack.state == "now"
    rows = pack.rows_of([bytes(path) for path in files])
    for path, row in zip(files, rows.tolist(), strict=True):
        assert torch.equal(pack.read(row), shortened(read_image(path), 32))
        assert min(pack.read(row).shape[1:]) == min(32, *read_image(path).shape[1:])


def test_a_stopped_packing_continues(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "AT_ONCE", 2)
    read: list[Path] = []

    def stop(done: int, _of: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    def reading(path: Path) -> Tensor:
        read.append(path)
        return read_image(path)

    monkeypatch.setattr(packs, "read_image", reading)
    with pytest.raises(KeyboardInterrupt):
        write_pack(tmp_path, files, 32, "now", stop)
    with (tmp_path / ".packed-32" / "pixels.bin").open("ab") as pixels:
        pixels.write(b"half an image")  # as a killed process leaves it
    assert len(read) == 4

    folder = write_pack(tmp_path, files, 32, "now", silent)

    assert len(read) == len(files)
    content = (folder / "pixels.bin").read_bytes()
    assert content == (write_pack(tmp_path, files, 32, "other", silent) / "pixels.bin").read_bytes()


def test_a_pack_that_was_cut_off_is_refused_and_made_again(
    tmp_path: Path, files: list[Path]
) -> None:
    folder = write_pack(tmp_path, files, 32, "now", silent)
    content = (folder / "pixels.bin").read_bytes()
    (folder / "pixels.bin").write_bytes(content[:5000])

    with pytest.raises(DataError, match=r"must have [0-9,]+ bytes \(got 5,000\)"):
        Pack(tmp_path, 32)
    write_pack(tmp_path, files, 32, "now", silent)

    assert (folder / "pixels.bin").read_bytes() == content


def test_a_pack_may_be_larger_than_the_memory(tmp_path: Path) -> None:
    """As that of ImageNet, which has 335 GB; nothing is stored of this file's first terabyte."""
    folder = packs.pack_folder(tmp_path, 256)
    folder.mkdir()
    sizes = np.array([[600_000, 600_000], [2, 3]])
    last = np.arange(18, dtype=np.uint8)
    starts = [0, 3 * 600_000**2]
    np.savez(folder / "index.npz", names=[b"a", b"b"], starts=starts, sizes=sizes, state="now")
    try:
        with (folder / "pixels.bin").open("wb") as file:
            file.seek(starts[1])
            file.write(last.tobytes())
    except OSError as error:
        pytest.skip(f"the file system has no sparse files of a terabyte ({error.strerror})")

    image = Pack(tmp_path, 256).read(1)

    assert image.permute(1, 2, 0).flatten().tolist() == last.tolist()


def test_two_processes_do_not_write_one_pack(tmp_path: Path, files: list[Path]) -> None:
    def again(_done: int, _of: int) -> None:
        write_pack(tmp_path, files, 32, "now", silent)

    with pytest.raises(DataError, match="Another process is packing"):
        write_pack(tmp_path, files, 32, "now", again)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.full)])
def test_packed_images_are_augmented_as_files_are(
    tmp_path: Path, files: list[Path], workers: int
) -> None:
    """At the size of the files, a pack changes no bit."""
    write_pack(tmp_path, files, 1000, "now", silent)
    classes = torch.arange(len(files))
    split = StreamedSplit(
        files, classes, ClassIndex(classes, len(files)), IMAGENET_NORMALIZATION,
        ResizedCropFlip(16), fit=central(16),
    )  # fmt: skip

    def requests() -> list[Request]:
        return [Request(torch.tensor([4, 0, 6]), generator(0, "augment")), Request(classes, None)]

    plain, packed = (
        [*batches(one, requests(), workers)] for one in (split, split.packed(Pack(tmp_path, 1000)))
    )

    for one, other in zip(plain, packed, strict=True):
        assert torch.equal(one, other)


def test_what_is_not_packed_is_named(tmp_path: Path, files: list[Path]) -> None:
    write_pack(tmp_path, files[1:], 32, "now", silent)

    with pytest.raises(DataError, match=r"0\.JPEG is not packed at 32"):
        Pack(tmp_path, 32).rows_of([bytes(path) for path in files])
    with pytest.raises(
        DataError, match=r"has no images packed at 64: run `mixbench data pack NAME --data .* 64`"
    ):
        Pack(tmp_path, 64)


FEW = tuple(
    word
    for text in ("classes=3", "epochs=1", "batch_size=10", "side=24")
    for word in ("--set", f"imagenet.{text}")
)


@pytest.mark.full
def test_a_training_reads_the_pack_and_says_so(mixbench: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    few = ("--classes", "3", "--train", "10", "--test", "4", "--set", "imagenet.side=32")
    assert mixbench("data", "make", "imagenet", *few, "--to", str(data)).returncode == 0
    cell = ("run", "-m", "none", "-t", "imagenet", "--protocol", "quick", *FEW)

    def run(*more: str) -> Any:
        return mixbench(*cell, "--data", str(data), "--set", "recipe.packed=24", *more)

    before = run()
    packed = mixbench("data", "pack", "imagenet", "--data", str(data), "--short-side", "24")
    after = run()
    next((data / "train").rglob("*.JPEG")).touch()
    changed = run("--seed", "1")
    small = run("--set", "imagenet.side=32")
    generated = mixbench(*cell, "--data", "synthetic", "--set", "imagenet.packed=24")

    assert before.returncode == 2
    assert "has no images packed at 24" in before.stderr
    assert "30 images packed at 24" in packed.stdout
    assert after.returncode == 0, after.stderr
    assert "packed=24" in after.stdout
    assert "have changed since they were packed at 24" in changed.stderr
    assert "packed must be at least the side of the model's images, 32 (got 24)" in small.stderr
    assert "packed must be 0 for generated data (got 24)" in generated.stderr

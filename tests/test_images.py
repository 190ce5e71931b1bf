"""Augmentation, decoding, and parts of a data set: against torchvision, and against each other."""

import multiprocessing
import os
import shutil
import signal
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from mixbench.contract import ClassIndex, Normalization
from mixbench.errors import DataError, MixbenchError
from mixbench.streams import generator
from mixbench.train import workers
from mixbench.train.loading import Request, batches
from mixbench.vision.images.augment import Augmentation, CropFlip, ResizedCropFlip, centre, grey
from mixbench.vision.images.decode import read_image
from mixbench.vision.images.folders import class_folders, list_images, unreadable
from mixbench.vision.images.splits import (
    ResidentSplit,
    StreamedSplit,
    limited,
    read_all,
)
from tests.support import until

PHOTOGRAPHS = Path(__file__).parents[2] / "shared" / "data" / "clothing"
PIXELS = Normalization((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


@pytest.fixture
def images(rng: torch.Generator) -> Tensor:
    return torch.randint(256, (24, 3, 12, 16), generator=rng, dtype=torch.uint8)


def in_memory(images: Tensor, augment: CropFlip | None = None) -> ResidentSplit:
    classes = torch.arange(len(images)) % 3
    return ResidentSplit(images, classes, ClassIndex(classes, 3), PIXELS, augment)


def from_files(images: Tensor, folder: Path, augment: Augmentation | None = None) -> StreamedSplit:
    paths = [folder / f"{i:02}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    classes = torch.arange(len(images)) % 3
    return StreamedSplit(
        paths, classes, ClassIndex(classes, 3), PIXELS, augment, fit=lambda image: image
    )


@pytest.mark.parametrize("number", [1, 5, 9, 24, 1000])
def test_a_trial_has_as_many_images_of_each_class_as_possible(
    images: Tensor, tmp_path: Path, number: int
) -> None:
    kept = min(number, 24)
    for whole in (in_memory(images), from_files(images, tmp_path)):
        split = limited(whole, number, seed=3)

        assert len(split) == kept
        assert split.by_class is not None
        assert split.by_class.counts.max() - split.by_class.counts.min() <= 1
        assert split.by_class.classes.equal(split.targets)
        everything, index = whole.read(torch.arange(24), None), torch.arange(kept)
        places = [
            int((everything == one).flatten(1).all(1).nonzero()) for one in split.read(index, None)
        ]
        assert places == sorted(set(places))
        assert whole.targets[places].equal(split.targets)
        assert limited(whole, number, seed=3).targets.equal(split.targets)


def test_a_streamed_part_reads_what_a_batch_has_and_keeps_nothing(
    images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, read = from_files(images, tmp_path), []
    alive: list[weakref.ref[Tensor]] = []

    def reading(path: Path) -> Tensor:
        image = read_image(path)
        read.append(path.name)
        alive.append(weakref.ref(image))
        return image

    monkeypatch.setattr("mixbench.vision.images.splits.read_image", reading)
    for index in (torch.tensor([3, 1]), torch.tensor([0])):
        split.read(index, None)

    assert sorted(read) == ["00.png", "01.png", "03.png"]
    assert [ref() for ref in alive] == [None] * 3


def test_a_batch_is_cropped_as_its_images_are(images: Tensor, rng: torch.Generator) -> None:
    augment = CropFlip(4, flip=0.5)
    draws = augment.draw(len(images), rng)

    batch = augment.crop_batch(images, draws)

    one_by_one = [augment.crop(image, row) for image, row in zip(images, draws, strict=True)]
    assert torch.equal(batch, torch.stack(one_by_one))


def test_every_shift_and_flip_is_as_likely(rng: torch.Generator) -> None:
    corner = torch.zeros(40_000, 1, 5, 5, dtype=torch.uint8)
    corner[:, :, 2, 1] = 1
    augment = CropFlip(1, flip=0.5)

    moved = augment.crop_batch(corner, augment.draw(len(corner), rng)).float().mean((0, 1))

    places = torch.zeros(5, 5)
    for down in range(1, 4):
        for right in range(3):
            places[down, right] += 1 / 18
            places[down, 4 - right] += 1 / 18
    torch.testing.assert_close(moved, places, atol=0.005, rtol=0)


def close(ours: Tensor, theirs: Tensor) -> bool:
    """Tell whether two images are equal; older versions of torchvision round some pixels up."""
    return int((ours.int() - theirs.int()).abs().max()) <= 1


@pytest.mark.parametrize("size", [(100, 80), (57, 200), (64, 48)])
def test_windows_are_resized_as_torchvision_does(size: tuple[int, int]) -> None:
    rng = generator(0, "synthetic")
    image = torch.randint(256, (3, *size), dtype=torch.uint8, generator=rng)
    augment = ResizedCropFlip(48)
    draws = augment.draw(1, rng)[0]
    draws[40] = 0.9  # not flipped

    top, left, height, width = augment.window(size, draws)

    theirs = tv.resized_crop(image, top, left, height, width, [48, 48], antialias=True)
    assert close(augment.crop(image, draws), theirs)
    draws[40] = 0.1
    assert close(augment.crop(image, draws), theirs.flip(-1))


@pytest.mark.parametrize("size", [(100, 80), (57, 200), (64, 49), (61, 61)])
def test_the_centre_is_torchvisions(size: tuple[int, int], rng: torch.Generator) -> None:
    image = torch.randint(256, (3, *size), dtype=torch.uint8, generator=rng)

    theirs = tv.center_crop(tv.resize(image, [55], antialias=True), [48, 48])

    assert close(centre(image, 55, 48), theirs)


def test_windows_follow_torchvisions_law() -> None:
    size, number = (60, 90), 4000
    augment = ResizedCropFlip(32)
    draws = augment.draw(number, generator(0, "augment"))
    ours = torch.tensor([augment.window(size, row) for row in draws], dtype=torch.float)
    blank = torch.empty(3, *size)
    theirs_transform = RandomResizedCrop(32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [theirs_transform.make_params([blank]) for _ in range(number)]
    theirs = torch.tensor(
        [[d[name] for name in ("top", "left", "height", "width")] for d in drawn], dtype=torch.float
    )

    torch.testing.assert_close(ours.mean(0), theirs.mean(0), rtol=0.06, atol=0.5)
    torch.testing.assert_close(ours.std(0), theirs.std(0), rtol=0.06, atol=0.5)


def test_colours_change_as_torchvision_changes_them(rng: torch.Generator) -> None:
    images = torch.rand(5, 3, 6, 7, generator=rng)
    augment = ResizedCropFlip(6, jitter=0.4)
    draws = augment.draw(5, rng)

    tinted = augment.color_jitter(images, draws)

    for image, row, ours in zip(images, draws[:, 41:44].tolist(), tinted, strict=True):
        brightness, contrast, saturation = (1 + 0.4 * (2 * draw - 1) for draw in row)
        theirs = tv.adjust_brightness(image, brightness)
        theirs = tv.adjust_contrast(theirs, contrast)
        theirs = tv.adjust_saturation(theirs, saturation)
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)  # their grey is rounded


def test_lighting_shifts_all_pixels_of_an_image_alike(rng: torch.Generator) -> None:
    images = torch.rand(2000, 3, 2, 2, generator=rng)
    augment = ResizedCropFlip(2, lighting=0.1)

    shift = augment.color_jitter(images, augment.draw(2000, rng)) - images

    assert float(shift.std((2, 3)).max()) < 1e-6
    deviation = shift[:, :, 0, 0].T.cov().trace().sqrt()
    assert float(deviation) == pytest.approx(0.1 * (0.2175**2 + 0.0188**2 + 0.0045**2) ** 0.5, 0.05)


def test_grey_is_the_brightness() -> None:
    assert grey(torch.ones(1, 3, 1, 1)).item() == pytest.approx(1, abs=1e-3)


def test_pixels_are_normalised(images: Tensor) -> None:
    read = in_memory(images).read(torch.tensor([3, 1]), None)

    for channel in range(3):
        theirs = (images[[3, 1], channel] / 255 - PIXELS.mean[channel]) / PIXELS.std[channel]
        torch.testing.assert_close(read[:, channel], theirs)


@pytest.mark.full
@pytest.mark.parametrize("number", [0, 1, 2])
def test_files_give_the_batches_that_memory_gives(
    images: Tensor, tmp_path: Path, number: int
) -> None:
    augment = CropFlip(2, flip=0.5)
    splits = in_memory(images, augment), from_files(images, tmp_path, augment)

    def requests() -> list[Request]:
        order = torch.randperm(24, generator=generator(0, "order")).split(7)
        return [Request(i, generator(0, "augment", n) if n else None) for n, i in enumerate(order)]

    resident, streamed = (list(batches(split, requests(), number)) for split in splits)

    assert [len(batch) for batch in streamed] == [7, 7, 7, 3]
    for one, other in zip(resident, streamed, strict=True):
        assert torch.equal(one, other)


@pytest.mark.full
@pytest.mark.parametrize("number", [0, 2])
def test_drawn_items_are_read_with_the_batch_that_they_replace(
    images: Tensor, tmp_path: Path, number: int
) -> None:
    """Files and memory give the same images; files of replaced items are not read."""
    augment = CropFlip(2, flip=0.5)
    streamed = from_files(images, tmp_path, augment)
    for gone in (1, 4):
        streamed.path(gone).unlink()
    replaced = torch.zeros(8, dtype=torch.bool)
    replaced[[1, 4]] = True

    def request() -> Request:
        rngs = generator(0, "augment"), generator(0, "draw")
        return Request(torch.arange(8), rngs[0], torch.tensor([9, 9, 20]), rngs[1], replaced)

    (resident,) = batches(in_memory(images, augment), [request()], 0)
    (read,) = batches(streamed, [request()], number)

    kept = torch.cat([~replaced, torch.ones(3, dtype=torch.bool)])
    assert len(resident) == len(read) == 11
    assert torch.equal(resident[kept], read[kept])
    assert not torch.equal(read[8], read[9])  # one item, augmented twice


@pytest.mark.full
@pytest.mark.parametrize("number", [0, 1])
def test_an_image_that_cannot_be_read_is_named(images: Tensor, tmp_path: Path, number: int) -> None:
    split = from_files(images, tmp_path)
    split.path(5).write_bytes(b"")

    with pytest.raises(DataError, match=r"05\.png is not an image file") as kept:
        list(batches(split, [Request(torch.arange(8), None)], number))

    assert kept.traceback  # it refers to what was read with, whose readers are to end anyway
    assert not multiprocessing.active_children()


@pytest.mark.full
def test_readers_end_with_who_stops_early(images: Tensor, tmp_path: Path) -> None:
    reading = batches(from_files(images, tmp_path), [Request(torch.arange(8), None)] * 9, 1)
    next(reading)  # is read before the workers start
    next(reading)
    assert multiprocessing.active_children()

    reading.close()

    assert not multiprocessing.active_children()


@pytest.mark.full
def test_a_killed_worker_is_one_sentence(images: Tensor, tmp_path: Path) -> None:
    reading = batches(from_files(images, tmp_path), [Request(torch.arange(8), None)] * 99, 1)
    next(reading)
    next(reading)
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)

    with pytest.raises(
        MixbenchError, match=r"worker was killed .*use fewer workers \(--workers N\)"
    ):
        list(reading)


@pytest.mark.parametrize(("free", "fit"), [(0, 0), (2000, 2), (10**9, 3)])
def test_workers_fit_into_shared_memory(
    free: int, fit: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)

    assert workers.workers_that_fit(3, batch_bytes=300) == fit
    assert bool(caplog.messages) == (fit < 3)
    assert all("docker run --shm-size" in text for text in caplog.messages)


def test_waiting_for_a_worker_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers, "WAITED_S", 0.1)
    monitor = workers.WaitMonitor([os.getpid(), 2**30])
    monitor.since = time.monotonic()
    monitor.start()

    until(lambda: caplog.messages)
    monitor.ended.set()
    monitor.join()

    assert f"{os.getpid()} " in caplog.messages[0]
    assert caplog.messages[0].endswith(f"{2**30} gone")


def saved(path: Path, mode: str, **options: object) -> Path:
    """Write an image of one colour, 6 x 4 pixels, in a mode of PIL's."""
    image = Image.new("RGB", (6, 4), (200, 100, 50)).convert(mode)
    image.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_every_kind_of_jpeg_becomes_rgb(tmp_path: Path, mode: str) -> None:
    image = read_image(saved(tmp_path / "image.jpg", mode, quality=95))

    assert image.shape == (3, 4, 6)
    assert image.dtype == torch.uint8
    if mode == "L":
        assert torch.equal(image[0], image[1])
    else:
        assert (image[:, 2, 2].int() - torch.tensor([200, 100, 50])).abs().max() <= 4


@pytest.mark.parametrize(
    "options",
    [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}, {"quality": 30}, {}],
    ids=str,
)
@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_jpegs_have_the_pixels_that_pillow_decodes(
    tmp_path: Path, images: Tensor, mode: str, options: dict[str, int]
) -> None:
    path = tmp_path / "image.jpg"
    grid = images[:, :, :11].permute(0, 2, 3, 1).reshape(-1, 16, 3).numpy()
    Image.fromarray(grid).convert(mode).save(path, **options)  # type: ignore[arg-type]

    assert torch.equal(read_image(path), by_pillow(path))


def test_photographs_have_the_pixels_that_pillow_decodes() -> None:
    if not PHOTOGRAPHS.exists():
        pytest.skip(f"needs the photographs in {PHOTOGRAPHS}")
    paths = sorted(PHOTOGRAPHS.rglob("*.jpg"))[::5]
    assert paths

    for path in paths:
        assert torch.equal(read_image(path), by_pillow(path))


def by_pillow(path: Path) -> Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def test_a_palette_with_transparency_becomes_rgb(tmp_path: Path) -> None:
    image = read_image(saved(tmp_path / "image.png", "P", transparency=0))

    assert image.shape == (3, 4, 6)


def test_a_note_on_how_to_turn_the_image_is_not_followed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    path = saved(tmp_path / "image.jpg", "RGB", exif=exif)

    assert read_image(path).shape == (3, 4, 6)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-80])


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (cut, "is damaged"),
        (lambda path: path.write_text("a text"), "is not an image file"),
        (Path.unlink, "is missing"),
    ],
    ids=["truncated", "text", "missing"],
)
def test_a_bad_file_is_named(
    tmp_path: Path, harm: Callable[[Path], object], complaint: str
) -> None:
    path = saved(tmp_path / "image.jpg", "RGB")
    harm(path)

    with pytest.raises(DataError, match=complaint) as caught:
        read_image(path)

    assert str(path) in str(caught.value)


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "image.png", "RGB")

    with pytest.raises(DataError, match=r"image\.png must be 5 x 6 pixels \(got 4 x 6\)"):
        read_all([path], (5, 6))


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    saved(tmp_path / "a" / "image.png", "RGB")

    with pytest.raises(DataError, match=r"class folder .*b must contain images"):
        list_images(tmp_path, class_folders(tmp_path))


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one subfolder of images per class"):
        class_folders(tmp_path / "nowhere")


def test_unreadable_images_are_counted_and_named(tmp_path: Path) -> None:
    saved(tmp_path / "good.png", "RGB")
    (tmp_path / "bad.jpg").write_text("x")
    (tmp_path / "note.txt").write_text("x")
    told = []

    number, faults = unreadable([tmp_path], lambda done, of: told.append((done, of)))

    assert number == 2
    assert told == [(1, 2), (2, 2)]
    assert [fault for fault in faults if "bad.jpg" in fault] == faults

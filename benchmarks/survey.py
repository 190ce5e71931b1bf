"""How long data is surveyed at ImageNet's size, beside what lists the same folders.

    python -m benchmarks.survey           (about three minutes)

1,281,167 + 50,000 empty files in 1,000 class folders each. A survey runs before every run. Before
its result is stored, a stage lists the files that it has read: the state of the training or of the
test images. torchvision's ImageFolder lists the files once per training and reads no sizes; the
floor walks the folders and asks for every file's size and time. Then the comparison of two methods
over five seeds and as many test images as ImageNet has. Writes benchmarks/survey.json.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
from torchvision.datasets import ImageFolder

from benchmarks.measuring import in_turns, publish, ratio, settle
from mixbench.datasets.survey import state_of, survey
from mixbench.leaderboard.statistics import compare_items
from mixbench.registry.units import find

PARTS = {"train": 1_281_167, "val": 50_000}
CLASSES, TURNS, SEEDS = 1000, 3, 5


def write_files(folder: Path) -> None:
    """Write empty image files in ImageNet's layout."""
    for part, number in PARTS.items():
        for name in range(CLASSES):
            place = folder / part / f"n{name:08}"
            place.mkdir(parents=True)
            for image in range(number // CLASSES + (name < number % CLASSES)):
                (place / f"{part}_{image:08}.JPEG").touch()


def walked(folder: Path) -> int:
    """Return the number of files, after asking for the size and time of each."""
    number = 0
    for place, _, names in os.walk(folder):
        for name in names:
            os.stat(f"{place}/{name}")  # noqa: PTH116  # the floor
            number += 1
    return number


def listed(folder: Path) -> int:
    """Return the number of files that torchvision's ImageFolder lists."""
    return sum(len(ImageFolder(folder / part)) for part in PARTS)


def main() -> None:
    """Measure, print and write."""
    settle()
    data = find("task", "imagenet").declared.data
    with tempfile.TemporaryDirectory() as place:
        folder, cache = Path(place) / "imagenet", Path(place) / "cache"
        write_files(folder)
        times = in_turns(
            {
                "survey": lambda: survey(data, folder, cache),
                "state of the training images": lambda: state_of(data, folder, "train", cache),
                "state of the test images": lambda: state_of(data, folder, "test", cache),
                "torchvision's ImageFolder": lambda: listed(folder),
                "os.walk and os.stat": lambda: walked(folder),
            },
            TURNS,
        )
    seconds = {name: sorted(values)[TURNS // 2] for name, values in times.items()}
    floor = {name: ratio(times, name, "os.walk and os.stat") for name in times}
    rng = np.random.default_rng(0)
    right = rng.random((2, SEEDS, PARTS["val"])) < 0.77
    first, second = 100 * right.astype(np.float64)
    comparing = in_turns({"compare": lambda: compare_items(first, second)}, TURNS, repeat=5)
    publish(
        "survey",
        {
            "files": sum(PARTS.values()),
            "seconds": seconds,
            "times_the_floor": floor,
            "ms_per_comparison": 1000 * sorted(comparing["compare"])[TURNS // 2],
        },
    )


if __name__ == "__main__":
    main()

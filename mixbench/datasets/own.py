"""The layout of a folder of the user's own photographs, in one folder per class."""

from pathlib import Path
from typing import Final, NamedTuple

from mixbench.datasets.listing import is_image, subfolders, visible
from mixbench.errors import DataError

TRAIN: Final = "train"
TESTS = ("test", "val")  # folders of test images, the first that exists
SPLIT: Final = "split"  # variant of a folder without these folders: test images are drawn


class OwnLayout(NamedTuple):
    """How a folder divides its images.

    Attributes
    ----------
    variant
        Name of the folder with the test images, beside ``train``; or ``split`` if there is none, so
        that test images must be drawn.
    classes
        Number of classes.
    """

    variant: str
    classes: int


def own_layout(folder: Path) -> OwnLayout:
    """Return the layout of a folder.

    Raises
    ------
    DataError
        If it has fewer than two classes, a class without images or with folders inside, or a test
        folder with other classes.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} must be a folder of images in one folder per class (not found).")
    name = folder.resolve().name
    if not name.isprintable() or not name:
        raise DataError(f"The folder {name!r} must have a name of printable characters: rename it.")
    inside = subfolders(folder)
    test = next((name for name in TESTS if name in inside), "")
    if TRAIN in inside and not test:
        raise DataError(
            f"{folder} has {TRAIN}/ but neither {' nor '.join(f'{name}/' for name in TESTS)}: add "
            f"a folder of test images, or give {folder / TRAIN}, of which a fifth is drawn for the "
            "test."
        )
    if TRAIN not in inside:
        return OwnLayout(SPLIT, len(_classes(folder)))
    names, others = _classes(folder / TRAIN), _classes(folder / test)
    if names != others:
        odd = sorted(set(names) ^ set(others))
        raise DataError(
            f"{folder / TRAIN} and {folder / test} must have the same class folders (only one of "
            f"them has {', '.join(odd[:5])})."
        )
    return OwnLayout(test, len(names))


def _classes(folder: Path) -> list[str]:
    """Return the sorted names of the class folders, after checking what they hold."""
    names = subfolders(folder)
    if len(names) < 2:  # there is nothing to distinguish
        raise DataError(
            f"{folder} must have at least two class folders (got {len(names)}"
            f"{f': {names[0]}' if names else ''})."
        )
    for name in names:
        if nested := subfolders(folder / name):
            raise DataError(
                f"The class folder {folder / name} must hold images, not folders (got "
                f"{nested[0]}/): move the images up, or give the folder whose folders are classes."
            )
        if not any(is_image(entry.name) for entry in visible(folder / name)):
            raise DataError(f"The class folder {folder / name} must hold images (got none).")
    return names

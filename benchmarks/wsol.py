"""What it costs to find the boxes of a score map at all thresholds.

    python -m benchmarks.wsol             (about a minute)

Maps are what a network of 14x14 or 28x28 points makes of 224x224 pixels: smooth noise, enlarged by
cubic interpolation, a half of it cut off at 0 as activations are. The peer is what wsolevaluation
does: for each of 1,000 thresholds, OpenCV finds the contours, and each one's box is compared with
the true one. It is also run on the 255 thresholds that differ. All take turns, a map each, on one
thread; all give the same overlaps, which is checked. Writes benchmarks/wsol.json.
"""

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measuring import publish, settle
from mixbench.streams import generator
from mixbench.vision.box_iou import box_iou
from mixbench.vision.localization.box_accuracy import GRID, SIDE, Floats, best_overlaps
from mixbench.vision.localization.cam import score_maps
from mixbench.vision.localization.components import LEVELS, Ints

MAPS = 40


def made_up(points: int) -> NDArray[np.float64]:
    """Return maps as a network's, (MAPS, SIDE, SIDE)."""
    rng = generator(0, "synthetic", points)
    coarse = torch.randn(MAPS, 1, points // 2, points // 2, generator=rng)
    smooth = torch.nn.functional.interpolate(coarse, (points, points), mode="bicubic")[:, 0]
    smooth[::2] = smooth[::2].relu()
    return score_maps(smooth, SIDE)


def contours_at(image: NDArray[np.uint8], threshold: int) -> Ints:
    """Return the boxes of OpenCV's contours above a threshold."""
    above = cv2.threshold(image, threshold, 255, cv2.THRESH_BINARY)[1]
    found = cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    boxes = []
    for contour in found:
        x, y, width, height = cv2.boundingRect(contour)
        boxes.append([x, y, min(x + width, SIDE - 1), min(y + height, SIDE - 1)])
    return np.array(boxes or [[0, 0, 0, 0]])


def by_contours(scores: Floats, truth: Ints, thresholds: Floats) -> Floats:
    """Return the largest overlaps, a threshold at a time."""
    image = (scores * LEVELS).astype(np.uint8)
    levels = (thresholds * image.max()).astype(int)
    return np.array([box_iou(contours_at(image, level), truth).max() for level in levels.tolist()])


def main() -> None:
    """Measure, print and write."""
    settle()
    cv2.setNumThreads(1)
    truth = np.array([[60, 50, 170, 160]])
    integers = (np.arange(LEVELS) + 0.5) / LEVELS  # in the middle of what truncates to each level
    ways: dict[str, Callable[[Floats], Floats]] = {
        "one_pass": lambda scores: best_overlaps(scores, truth),
        "opencv_1000_thresholds": lambda scores: by_contours(scores, truth, GRID),
        "opencv_255_thresholds": lambda scores: by_contours(scores, truth, integers),
    }
    results: dict[str, Any] = {"maps": MAPS, "opencv": cv2.__version__, "numpy": np.__version__}
    for points in (14, 28):
        times: dict[str, list[float]] = {name: [] for name in ways}
        difference = 0.0
        for scores in made_up(points):
            found = {}
            for name, way in ways.items():
                start = perf_counter()
                found[name] = way(scores)
                times[name].append(1e3 * (perf_counter() - start))
            gap = np.abs(found["one_pass"] - found["opencv_1000_thresholds"])
            difference = max(difference, float(gap.max()))
        ms = {name: median(values) for name, values in times.items()}
        results[f"{points}x{points}"] = {
            "largest_difference_of_overlaps": difference,
            "ms_per_map": ms,
            "times_faster_than_1000_thresholds": ms["opencv_1000_thresholds"] / ms["one_pass"],
            "times_faster_than_255_thresholds": ms["opencv_255_thresholds"] / ms["one_pass"],
        }
    publish("wsol", results)


if __name__ == "__main__":
    main()

"""MaxBoxAcc and MaxBoxAccV2 are the reference's, to the last bit."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mixbench.vision.box_iou import box_iou
from mixbench.vision.localization.box_accuracy import (
    GRID,
    SIDE,
    best_overlaps,
    box_accuracy,
    centre_baseline,
    fitting_box,
    resized,
)

# What BoxEvaluator of clovaai/wsolevaluation@96f4b88 says of `blobs`, with several contours and a
# step of 0.001: MaxBoxAcc at 30, 50 and 70 %, and how often an image fits, over all thresholds.
FROZEN = {
    1.0: ((78.33333333333333, 25.0, 10.0), (24250, 7121, 1792)),
    0.37: ((78.33333333333333, 25.0, 10.0), (24149, 7083, 1812)),  # of maps that do not reach 1
}
FROZEN_CENTRE = (100.0, 78.33333333333333, 11.666666666666666)


def blobs(number: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return maps between 0 and 1, (N, 224, 224), and true boxes, two for each, (N, 2, 4).

    Every second image has one box, which is repeated.
    """
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    maps, boxes, sizes = [], [], []
    for item in range(number):
        scores = np.zeros((SIDE, SIDE))
        for _ in range(4):
            row, column, width = rng.integers(30, 194), rng.integers(30, 194), rng.integers(12, 60)
            distance = (rows - row) ** 2 + (columns - column) ** 2
            scores += rng.uniform(-0.5, 1) * np.exp(-distance / (2 * width**2))
        scores = np.maximum(scores, 0) if item % 3 == 0 else scores - scores.min()
        maps.append(scores / scores.max())
        size = rng.integers(200, 500, 2)
        found = []
        for _ in range(1 + item % 2):
            first, last = rng.integers(0, size * 2 // 5), rng.integers(size * 3 // 5, size)
            found.append([*first, *last])
        boxes.append((found * 2)[:2])
        sizes.append(size)
    return np.stack(maps), resized(np.array(boxes), np.array(sizes))


@pytest.mark.parametrize("peak", FROZEN)
def test_accuracies_are_the_references(peak: float) -> None:
    maps, truths = blobs(60)
    best = np.stack([best_overlaps(m * peak, t) for m, t in zip(maps, truths, strict=True)])

    found = box_accuracy(best)

    accuracies, fits = FROZEN[peak]
    assert tuple(found.best.values()) == accuracies
    assert tuple(int((best >= at).sum()) for at in (0.3, 0.5, 0.7)) == fits
    assert found.v2 == pytest.approx(sum(accuracies) / 3, abs=1e-12)


def test_the_centre_baseline_is_the_references() -> None:
    assert tuple(centre_baseline(blobs(60)[1]).best.values()) == FROZEN_CENTRE


def test_pixels_at_both_ends_count() -> None:
    boxes = np.array([[1, 2, 5, 6], [3, 1, 4, 5], [9, 9, 9, 9]])

    found = box_iou(boxes, boxes[:2])

    assert found.tolist() == [[1, 8 / 27], [8 / 27, 1], [0, 0]]


def test_boxes_are_resized_by_axis_and_truncated() -> None:
    boxes = np.array([[[1, 2, 4, 3], [9, 19, 9, 19]]])

    assert resized(boxes, np.array([[10, 20]]), 35).tolist() == [[[3, 3, 14, 5], [31, 33, 31, 33]]]


def test_a_map_that_is_0_everywhere_has_the_box_of_one_pixel() -> None:
    """As the reference's, which is not the same as no overlap."""
    truth = np.array([[0, 0, 3, 1]])

    found = best_overlaps(np.zeros((7, 9)), truth)

    assert found.shape == GRID.shape
    assert set(found) == {1 / 8}


def test_the_best_of_several_true_boxes_counts() -> None:
    scores = np.zeros((20, 30))
    scores[5:9, 10:19] = 1.0
    one, other = np.array([[0, 0, 3, 3]]), np.array([[10, 5, 19, 9]])

    assert best_overlaps(scores, np.concatenate([one, other])).max() == 1.0
    assert best_overlaps(scores, one).max() == 0.0


def test_each_overlap_has_the_threshold_that_is_best_for_it() -> None:
    best = np.zeros((2, len(GRID)))
    best[:, 300] = 0.35
    best[0, 700] = 0.8

    found = box_accuracy(best)

    assert found.best == {30: 100.0, 50: 50.0, 70: 50.0}
    assert found.thresholds == {30: GRID[300], 50: GRID[700], 70: GRID[700]}


def test_the_box_that_is_drawn_is_the_one_that_counts() -> None:
    maps, truths = blobs(4)
    for scores, truth in zip(maps, truths, strict=True):
        best = best_overlaps(scores, truth)
        for place in (100, 450, 800):
            box = fitting_box(scores, truth, float(GRID[place]))
            assert box_iou(box[None], truth).max() == best[place]

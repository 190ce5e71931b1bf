"""All boxes at all thresholds in one pass are those of a contour search at each threshold."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from mixbench.vision.localization.components import boxes_of

Scores = NDArray[np.float64]


def one_pass(scores: Scores) -> dict[int, list[list[int]]]:
    """Return the boxes at every threshold below the largest level, sorted."""
    found = boxes_of(scores)
    levels = range(int(scores.max() * 255))
    return {t: sorted(found.corners[found.threshold == t].tolist()) for t in levels}


def by_contours(scores: Scores) -> dict[int, list[list[int]]]:
    """Return the same from OpenCV, as clovaai/wsolevaluation@96f4b88, evaluation.py:122-182."""
    image = (scores * 255).astype(np.uint8)
    height, width = image.shape
    boxes = {}
    for threshold in range(int(image.max())):
        above = cv2.threshold(image, threshold, 255, cv2.THRESH_BINARY)[1]
        contours = cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        rects = [cv2.boundingRect(contour) for contour in contours]
        boxes[threshold] = sorted(
            [x, y, min(x + w, width - 1), min(y + h, height - 1)] for x, y, w, h in rects
        )
    return boxes


def smooth(seed: int, points: int, size: tuple[int, int]) -> Scores:
    """Return smooth noise as a network's map, between 0 and 1."""
    coarse = np.random.default_rng(seed).standard_normal((points, points))
    scores = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    scores = scores - scores.min()
    return np.asarray(scores / scores.max(), np.float64)


@pytest.mark.parametrize("points", [3, 14, 28])
@pytest.mark.parametrize("size", [(224, 224), (37, 61), (9, 30)])
def test_boxes_are_opencvs(points: int, size: tuple[int, int]) -> None:
    scores = smooth(points, points, size)

    assert one_pass(scores) == by_contours(scores)


@pytest.mark.parametrize("steps", [1, 3, 9])
def test_boxes_are_opencvs_on_flat_ground(steps: int) -> None:
    """Where many pixels have one score, and where activations are cut off at 0."""
    scores = np.maximum(np.floor(smooth(0, 14, (60, 50)) * steps) / steps - 0.2, 0) / 0.8

    assert one_pass(scores) == by_contours(scores)


@pytest.mark.full
@settings(max_examples=150, deadline=None)
@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 8), st.integers(1, 8)),
        elements=st.sampled_from([0.0, 0.004, 0.1, 0.5, 0.9, 1.0]),
    )
)
def test_boxes_are_opencvs_on_anything_small(scores: Scores) -> None:
    assert one_pass(scores) == by_contours(scores)


def test_ends_are_one_past_the_last_pixel_but_never_past_the_map() -> None:
    scores = np.zeros((6, 9))
    scores[1:3, 2:5] = 1.0
    scores[4:6, 7:9] = 1.0

    assert one_pass(scores)[0] == [[2, 1, 5, 3], [7, 4, 8, 5]]


def test_a_hole_has_the_box_of_the_ring_around_it() -> None:
    scores = np.ones((9, 12))
    scores[3:5, 4:8] = 0.0

    assert one_pass(scores)[100] == [[0, 0, 11, 8], [3, 2, 9, 6]]


def test_components_touch_at_corners_and_holes_do_not() -> None:
    scores = np.zeros((7, 6))
    scores[1, 1] = scores[2, 2] = 1.0
    whole = 1.0 - scores

    assert one_pass(scores)[10] == [[1, 1, 3, 3]]
    assert one_pass(whole)[10] == [[0, 0, 3, 3], [0, 0, 5, 6], [1, 1, 4, 4]]


def test_a_component_is_there_until_its_peak_and_splits_at_its_saddle() -> None:
    row = np.array([0, 100, 40, 200, 0]) / 255
    boxes = one_pass(np.vstack([np.zeros(5), row, np.zeros(5)]))

    assert boxes[39] == [[1, 1, 4, 2]]
    assert boxes[40] == [[1, 1, 2, 2], [3, 1, 4, 2]]
    assert boxes[100] == [[3, 1, 4, 2]]
    assert max(boxes) == 199


def test_what_is_truncated_decides() -> None:
    """A score belongs to the level below it, as eight bits hold it."""
    scores = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 9.999 / 255]])
    boxes = one_pass(scores)

    assert boxes[8] == [[0, 0, 1, 1], [2, 1, 2, 1]]
    assert boxes[9] == [[0, 0, 1, 1]]

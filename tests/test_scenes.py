"""Generated scenes: what is told of them is what they show."""

import pytest
import torch
from torch import Tensor

from mixbench.errors import BadParameter
from mixbench.streams import generator
from mixbench.vision.images.scenes import Layout, looks, one_thing, paint, shuffled_classes

SIZE = (48, 64)


def painted(layout: Layout, number: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return the pictures of scenes, and their boxes."""
    scenes = list(paint(layout, looks(number), SIZE, generator(seed, "synthetic")))
    return torch.cat([s.images for s in scenes]), torch.cat([s.boxes for s in scenes])


def test_looks_are_different_and_grow_at_the_end() -> None:
    many = looks(200)

    assert len(set(many)) == 200
    assert len({look.name for look in many}) == 200
    assert looks(10) == many[:10]


def test_no_shape_texture_or_colour_tells_a_class_by_itself() -> None:
    for part in range(3):
        values = [look[part] for look in looks(10)]
        assert max(map(values.count, values)) >= 3
        assert len(set(values)) >= 2


@pytest.mark.parametrize("number", [0, 1201])
def test_more_looks_than_there_are_is_refused(number: int) -> None:
    with pytest.raises(BadParameter, match=rf"in 1\.\.1200 .*got {number}"):
        looks(number)


def test_the_same_seed_paints_the_same() -> None:
    def once(seed: int) -> Tensor:
        rng = generator(seed, "synthetic")
        return painted(one_thing(shuffled_classes(3, 4, rng), rng), 3, seed)[0]

    assert torch.equal(once(0), once(0))
    assert not torch.equal(once(0), once(1))


def test_every_class_comes_as_often() -> None:
    classes = shuffled_classes(7, 5, generator(0, "synthetic"))

    assert classes.bincount().tolist() == [5] * 7
    assert classes.tolist() != sorted(classes.tolist())


def test_a_box_holds_what_the_thing_changed() -> None:
    rng = generator(0, "synthetic")
    layout = one_thing(shuffled_classes(8, 3, rng), rng)
    nothing = Layout(torch.full_like(layout.looks, -1), layout.centres, layout.radii)
    with_things, boxes = painted(layout, 8)
    without, no_boxes = painted(nothing, 8)

    changed = (with_things.int() - without.int()).abs().amax(1) > 40
    assert not no_boxes.any()
    for mask, (left, top, width, height) in zip(changed, boxes[:, 0].int().tolist(), strict=True):
        inside = mask[top : top + height, left : left + width].sum()
        assert width >= 8 <= height
        assert left + width <= SIZE[1]
        assert top + height <= SIZE[0]
        assert inside > 0.98 * mask.sum()


def test_a_thing_in_front_hides_what_lies_behind() -> None:
    both = Layout(torch.tensor([[0, 1]]), torch.full((1, 2, 2), 0.5), torch.tensor([[0.2, 0.45]]))
    behind = Layout(torch.tensor([[0]]), torch.full((1, 1, 2), 0.5), torch.tensor([[0.2]]))

    hidden = painted(both, 2)[1][0, 0]
    seen = painted(behind, 2)[1][0, 0]

    assert not hidden.any()
    assert seen.all()

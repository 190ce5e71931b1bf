"""What mixing a batch costs, in copies of the batch into memory that is already there.

    python -m benchmarks.mixing           (about two minutes; the peers need mixbench[bench])

The kernels beside torchvision's, timm's and kornia's way to do the same: the same pairs, shares and
boxes of a quarter of the image; what each peer returns is compared with the kernel's first. No
library composes grids, so that one's peer is Algorithm 1 as it is printed: ``M * a + (1 - M) * b``.
Then every method that is registered, on a batch and on one twice as large. One thread; freed memory
is kept, as in a stage, for all of them. Writes benchmarks/mixing.json.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measuring import in_turns, publish, ratio, settle
from mixbench import kernels
from mixbench.registry.units import find, paths
from mixbench.streams import generator
from mixbench.testing.toy import CLASSES, step_of, subject_of

BATCH, LAM, GRID, TURNS = 128, 0.3, 4, 11
REPEAT = {224: 1, 32: 49}  # a turn of each size takes as long
Way = Callable[[], Tensor]
Ways = Mapping[str, Way]


class Batch:
    """Images, and what is drawn to mix them.

    Parameters
    ----------
    size : pixels
    """

    def __init__(self, size: int, dtype: torch.dtype, number: int = BATCH) -> None:
        rng = generator(0, "synthetic")
        pixels = torch.rand(number, 3, size, size, generator=rng)
        self.x = (255 * pixels if dtype == torch.uint8 else pixels).to(dtype)
        self.classes = torch.randint(10, (number,), generator=rng)
        self.partner = torch.randperm(number, generator=rng)
        self.rolled = kernels.rolled_index(number, self.x.device)
        self.flipped = torch.arange(number).flip(0)
        quarter = size // 4
        self.box = kernels.Box(quarter, 3 * quarter, quarter, 3 * quarter)
        self.own = torch.rand(number, GRID**2, generator=rng) < 0.5
        self.index = torch.where(self.own, torch.arange(number)[:, None], self.partner[:, None])
        self.copy = torch.empty_like(self.x)


def copier(batch: Batch) -> Way:
    """Return the unit of all times: a copy into memory that is already there."""
    return lambda: batch.copy.copy_(batch.x)


def ours(batch: Batch) -> Ways:
    """Return the kernels."""
    x, scratch = batch.x, batch.x.clone()
    rolled = {"blend, rolled": lambda: kernels.blend_rolled(x, LAM)}
    return {
        "blend": lambda: kernels.blend(x, batch.partner, LAM),
        **(rolled if x.is_floating_point() else {}),
        "box": lambda: kernels.paste_box(x, batch.partner, batch.box),
        "box, in place": lambda: kernels.paste_box_(scratch, batch.partner, batch.box),
        "grid": lambda: kernels.compose_grid(x, batch.index, GRID),
    }


def algorithm_1(batch: Batch) -> Tensor:
    """Compose grids as the paper prints it: masks of floats, two products and a sum."""
    cells = kernels.cell_of_pixels((batch.x.shape[-2], batch.x.shape[-1]), GRID, batch.x.device)
    mask = batch.own.to(batch.x.dtype)[:, cells][:, None]
    return mask * batch.x + (1 - mask) * batch.x[batch.partner]


def torchvision_ways(batch: Batch) -> tuple[Ways, Ways]:
    """Return torchvision's MixUp and CutMix, and what the kernels make of the same draws."""
    from torchvision.transforms import v2

    mixup, cutmix = v2.MixUp(num_classes=10), v2.CutMix(num_classes=10)
    top, bottom, left, right = batch.box
    drawn = {"labels": batch.classes, "batch_size": len(batch.x), "lam": LAM}
    boxed = {**drawn, "box": (left, top, right, bottom), "lam_adjusted": 0.75}
    return {
        "blend": lambda: mixup.transform(batch.x, drawn),
        "box": lambda: cutmix.transform(batch.x, boxed),
    }, {
        "blend": lambda: kernels.blend(batch.x, batch.rolled, LAM),
        "box": lambda: kernels.paste_box(batch.x, batch.rolled, batch.box),
    }


def timm_ways(batch: Batch) -> tuple[Ways, Ways]:
    """Return timm's mixup and cutmix of whole batches, which work in place, and our kernels'."""
    from timm.data import mixup as timm_mixup

    def way(*, box: bool) -> Way:
        scratch = batch.x.clone()
        mixup: Any = timm_mixup.Mixup(cutmix_alpha=1.0, num_classes=10)
        mixup._params_per_batch = lambda: (0.75 if box else LAM, box)
        return lambda: mixup(scratch, batch.classes)[0]

    def equal(*, box: bool) -> Way:
        if not box:
            return lambda: kernels.blend(batch.x, batch.flipped, LAM)
        top, bottom, left, right = (int(edge) for edge in timm_mixup.rand_bbox(batch.x.shape, 0.75))
        return lambda: kernels.paste_box(
            batch.x, batch.flipped, kernels.Box(top, bottom, left, right)
        )

    return (
        {"blend": way(box=False), "box": way(box=True)},
        {"blend": equal(box=False), "box": equal(box=True)},
    )


def kornia_ways(batch: Batch) -> tuple[Ways, Ways]:
    """Return kornia's mixes of whole batches, and what the kernels make of its draws."""
    from kornia.augmentation import RandomCutMixV2, RandomMixUpV2

    keys = ["input", "class"]
    mixup = RandomMixUpV2(lambda_val=torch.tensor([1 - LAM, 1 - LAM]), data_keys=keys)
    cutmix = RandomCutMixV2(
        cut_size=torch.tensor([0.75, 0.75]), data_keys=keys, use_correct_lambda=True
    )

    def equal_box() -> Tensor:
        """Paste every image's own box, which kornia draws, by the images that have that box."""
        corners, (partner,) = cutmix._params["crop_src"][0].int(), cutmix._params["mix_pairs"]
        mixed = batch.x.clone()
        for corner in corners.unique(dim=0):
            (left, top), (right, bottom) = corner[0].tolist(), (corner[2] + 1).tolist()
            whose = (corners == corner).all((1, 2))
            box = kernels.Box(top, bottom, left, right)
            mixed[whose] = kernels.paste_box(batch.x, partner, box)[whose]
        return mixed

    return {
        "blend": lambda: mixup(batch.x, batch.classes)[0],
        "box": lambda: cutmix(batch.x, batch.classes)[0],
    }, {
        "blend": lambda: kernels.blend(batch.x, mixup._params["mixup_pairs"], LAM),
        "box": equal_box,
    }


PEERS = {"torchvision": torchvision_ways, "timm": timm_ways, "kornia": kornia_ways}


def checked(batch: Batch) -> dict[str, Way]:
    """Return all peers' ways, after the kernels have returned what each of them does."""
    ways = {}
    for peer, both in PEERS.items():
        theirs, equal = both(batch)
        for what, way in theirs.items():
            start = batch.x.clone()
            torch.manual_seed(0)
            np.random.seed(0)  # noqa: NPY002  # what timm draws from
            expected = way().clone()
            np.random.seed(0)  # noqa: NPY002
            torch.testing.assert_close(equal[what](), expected, msg=f"{what}, {peer}")
            torch.testing.assert_close(batch.x, start, rtol=0, atol=0)
            ways[f"{what}, {peer}"] = way
    grids = kernels.compose_grid(batch.x, batch.index, GRID)
    torch.testing.assert_close(grids, algorithm_1(batch), rtol=0, atol=0)
    return {**ways, "grid, Algorithm 1": lambda: algorithm_1(batch)}


def compare(size: int) -> dict[str, Any]:
    """Measure the kernels beside the peers, in copies of the batch."""
    batch = Batch(size, torch.float32)
    ways = {"copy": copier(batch), **ours(batch), **checked(batch)}
    times = in_turns(ways, TURNS, repeat=REPEAT[size])
    copies = {name: ratio(times, name, "copy") for name in ways}
    kept = ours(batch)
    faster = {}
    for name in kept:
        what = name.split(",")[0]
        peers = [way for way in ways if way.startswith(f"{what}, ") and way not in kept]
        faster[name] = min(ratio(times, peer, name) for peer in peers)
    return {"size": size, "copies": copies, "times_faster_than_the_best_peer": faster}


def by_type(size: int) -> dict[str, dict[str, float]]:
    """Return what the kernels cost on other types, in copies of a batch of that type."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16, torch.uint8):
        batch = Batch(size, dtype)
        times = in_turns({"copy": copier(batch), **ours(batch)}, TURNS, repeat=REPEAT[size])
        found[str(dtype).removeprefix("torch.")] = {n: ratio(times, n, "copy") for n in times}
    return found


def mixer(name: str, batch: Batch) -> Way:
    """Return what mixes a batch by a registered method, from a fresh stream each time."""
    size = (batch.x.shape[-2], batch.x.shape[-1])
    method, model, task = subject_of(find("method", name)).bound(size=size)
    step: Any = step_of(batch.x, 0, task, model, pool=batch.x, overwritable=True)
    # What a method asks of a model counts as images that are passed through it, not as mixing.
    step.saliency, step.predict = cache(step.saliency), cache(step.predict)
    step.ask = cache(step.ask)

    def mix() -> Tensor:
        step.rng = generator(0, "mix")
        step.images, step.targets = batch.x, batch.classes % CLASSES  # without what was drawn
        return method.mix(batch.x, step)[0]

    return mix


def methods() -> dict[str, dict[str, float]]:
    """Return what every registered method costs in copies of the batch, and how that grows.

    The batch has 128 images of 112 pixels; it grows to images of 224 pixels, and to 256 images.
    What a method asks of a model is there already. Methods whose masks learn are left out: they
    compare all places of a feature map, of which the toy network has too many.
    """
    one, large = (Batch(size, torch.float32) for size in (112, 224))
    two = Batch(112, torch.float32, 2 * BATCH)
    found = {}
    for name in sorted(paths("method")):
        if find("method", name).declared.ema_decay:
            continue
        ways = {
            "copy": copier(one),
            "copy of 224": copier(large),
            "one": mixer(name, one),
            "large": mixer(name, large),
            "two": mixer(name, two),
        }
        times = in_turns(ways, 3)
        found[name] = {
            "copies": ratio(times, "one", "copy"),
            "copies_224": ratio(times, "large", "copy of 224"),
            "growth": ratio(times, "two", "one"),
        }
    return found


def main() -> None:
    """Measure, print and write."""
    settle()
    publish(
        "mixing",
        {
            "batch": BATCH,
            "sizes": [compare(size) for size in (224, 32)],
            "types": {str(size): by_type(size) for size in (224, 32)},
            "methods": methods(),
        },
    )


if __name__ == "__main__":
    main()

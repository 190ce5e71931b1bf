"""Checks of `Method.mix`: correct weights, shapes and types, and no side effects.

To test the weights, image i is 1 in channel i and 0 elsewhere. After mixing, the mean of a channel
is exactly the fraction of the pixels that come from its image, and must equal the weight in
`Sources`. A last channel has a bright pixel at a place of its own in each image, for methods that
look for what is salient. Some images are not square and the batch size differs from the number of
classes, so that the checks detect swapped axes. Batches have several sizes, three or more channels,
and may be overwritten or not.
"""

import torch

from mixbench.contract import ReadAhead, Step
from mixbench.errors import MixbenchError
from mixbench.streams import generator
from mixbench.testing.measuring import TOLERANCE, unchanged_global_randomness, within
from mixbench.testing.toy import (
    CLASSES,
    SEEDS,
    SIZES,
    Mixed,
    Subject,
    lit,
    mix,
    noise,
    step_of,
)

BFLOAT16 = 0.02  # bfloat16 has 8 significant bits, and means add up their errors
LONG = ((6, 48), (48, 6))  # height, width
MOST_STREAMS = 60


def weights_match_pixels(subject: Subject) -> str:
    """Each weight in `Sources` equals the fraction of the pixels that come from that source.

    Else: compute the weights from the mask that was applied, after clipping and rounding. If it
    fails only where the batch may be overwritten, read all images before writing any of them.
    """
    largest = 0.0
    for where, mixed in subject.mixes:
        gap = _from_the_pixels(mixed)
        assert gap <= TOLERANCE, f"weights differ by {gap:.3f} from the pixel fractions {where}"
        largest = max(largest, gap)
    for seed in SEEDS:
        gap = _from_the_pixels(mix(subject, lit(6, (8, 12), 7, seed).bfloat16(), seed))
        where = f"in bfloat16, stream {seed}"
        assert gap <= BFLOAT16, f"weights differ by {gap:.3f} from the pixel fractions {where}"
    return within(largest)


def _from_the_pixels(mixed: Mixed) -> float:
    """Return how much the weights differ from the fractions of the pixels."""
    before, after = (x[:, :-1].float().mean((2, 3)) for x in (mixed.step.images, mixed.images))
    said = (before[mixed.sources.index] * mixed.sources.weight[..., None]).sum(1)
    return float((after - said).detach().abs().max())


def weights_sum_to_one(subject: Subject) -> str:
    """Weights are float32 and non-negative, and each row sums to 1.

    Else: return `Sources.pair(partner, share)`, or divide the weights by their sum.
    """
    largest = 0.0
    for where, mixed in subject.mixes:
        weight = mixed.sources.weight
        assert weight.dtype == torch.float32, f"weights are {weight.dtype} {where}"
        assert float(weight.min()) >= 0, f"a weight is {float(weight.min()):.3f} {where}"
        gap = float((weight.sum(1) - 1).abs().max())
        assert gap <= TOLERANCE, f"a row of weights differs by {gap:.3f} from a sum of 1 {where}"
        largest = max(largest, gap)
    return within(largest)


def sources_are_in_batch(subject: Subject) -> str:
    """Indices are int64, have one row per image, and are positions in the batch.

    Else: return positions in `step.images`, on the device of the images.
    """
    most = 0
    for where, mixed in subject.mixes:
        index, weight = mixed.sources.index, mixed.sources.weight
        assert index.device == mixed.step.images.device, f"indices are on {index.device} {where}"
        assert index.device == weight.device, f"weights are on {weight.device} {where}"
        assert index.dtype == torch.int64, f"indices are {index.dtype} {where}"
        size = len(mixed.images), index.shape[-1]
        assert index.shape == weight.shape == size, f"shape {tuple(index.shape)} {where}"
        assert int(index.min()) >= 0, f"an index is {int(index.min())} {where}"
        assert int(index.max()) < len(mixed.step.images), f"an index exceeds the batch {where}"
        most = max(most, index.shape[-1])
    return f"up to {most} sources per image"


def shape_and_dtype_are_kept(subject: Subject) -> str:
    """The mixed batch has the shape and dtype of the input, for every batch size and image size.

    Else: support every image size and a batch of one; keep the dtype of the images.
    """
    for number in (1, 2, 7):
        for size in SIZES:
            images = noise(number, size)
            mixed = mix(subject, images, seed=1).images
            assert mixed.shape == images.shape, f"{tuple(images.shape)} became {mixed.shape}"
            assert mixed.dtype == images.dtype, f"{images.dtype} became {mixed.dtype}"
    return "batches of 1, 2 and 7, every image size"


def bfloat16_is_kept_and_weights_are_float32(subject: Subject) -> str:
    """Images in bfloat16 stay bfloat16, and their weights are float32.

    Else: create the mixed images with the dtype of the input, and the weights as float32.
    """
    for seed in SEEDS:
        mixed = mix(subject, noise(6, (8, 12)).bfloat16(), seed)
        assert mixed.images.dtype == torch.bfloat16, f"bfloat16 became {mixed.images.dtype}"
        assert mixed.sources.weight.dtype == torch.float32, "weights are not float32"
    return f"{len(SEEDS)} streams"


def input_is_not_modified(subject: Subject) -> str:
    """Mixing modifies neither the input images nor the targets in place.

    Else: clone what you write into, create a new batch, or ask `step.may_overwrite(x)`.
    """
    for seed in SEEDS:
        number = (6, 5, 1)[seed % 3]
        images = noise(number, (8, 12))
        before = images.clone()
        step = mix(subject, images, seed).step
        same = torch.equal(images, before)
        assert same, f"the images of a batch of {number} were modified (stream {seed})"
        targets = torch.arange(number) % CLASSES
        assert torch.equal(step.targets[:number], targets), "targets were modified"
    return f"{len(SEEDS)} streams, batches of 6, 5 and 1, bit-identical"


def same_rng_same_result(subject: Subject) -> str:
    """Equal random generators give bit-identical results, whatever was mixed before.

    Else: draw only from `step.rng`; use no clock and keep no state between steps.
    """
    images = noise(6, (8, 12))
    used, model, task = subject.bound(size=(8, 12))
    for seed in SEEDS:
        first = mix(subject, images, seed)
        step = step_of(images, seed, task, model)
        again, sources = used.mix(images, step)
        assert torch.equal(first.images, again), (
            f"the images of a new method and of one that has mixed before differ (stream {seed})"
        )
        assert torch.equal(first.sources.weight, sources.weight), "weights differ"
    return f"{len(SEEDS)} streams, bit-identical"


def other_rng_other_result(subject: Subject) -> str:
    """Different random generators give different results, unless the method never mixes.

    Else: draw random numbers in `mix`, not once in `__init__`.
    """
    images = noise(6, (8, 12))
    results = [mix(subject, images, seed).images for seed in SEEDS]
    untouched = all(torch.equal(result, images) for result in results)
    varied = any(not torch.equal(results[0], other) for other in results[1:])
    assert untouched or varied, f"{len(results)} streams gave the same result"
    return f"{len(SEEDS)} streams"


def draws_only_from_step_rng(subject: Subject) -> str:
    """Mixing neither uses nor sets the global random state.

    Else: pass `generator=step.rng` to every function that draws random numbers.
    """
    with unchanged_global_randomness():
        for seed in SEEDS:
            mix(subject, noise(6, (8, 12)), seed)
    return "global random state of torch, numpy and Python unchanged"


def announced_draws_are_drawn(subject: Subject) -> str:
    """The items that `draws` announces are drawn, and those that they replace are not used.

    Else: let `draws` and `mix` start with the same draws from their random generators.
    """  # noqa: DOC501 - checks state their faults in assertions
    announced = 0
    for seed in SEEDS:
        method, model, task = subject.bound(size=(8, 12))
        images, pool = noise(6, (8, 12)), noise(4 * CLASSES, (8, 12))
        draws = method.draws(len(images), generator(seed, "mix"))
        if draws is None:
            continue
        assert len(method.sites) == 1, "a method that mixes at several sites cannot announce draws"
        announced += len(draws.classes)
        step = step_of(images, seed, task, model, pool=pool)
        images[draws.replaced] = torch.nan
        targets = torch.cat([step.targets, draws.classes])
        ahead = ReadAhead(draws.classes, torch.cat([images, pool[: len(draws.classes)]]), targets)
        step = Step(images, step.targets, rng=step.rng, task=task, model=model, read_ahead=ahead)
        try:
            mixed, sources = method.mix(step.images, step)
        except MixbenchError as error:  # other classes are drawn than announced
            raise AssertionError(f"{error} (stream {seed})") from error
        assert mixed.isfinite().all(), f"a replaced image is used (stream {seed})"
        gone = torch.nonzero(draws.replaced).flatten()
        used = torch.isin(sources.index, gone) & (sources.weight > 0)
        assert not used.any(), f"a replaced item is a source (stream {seed})"
        assert len(step.images) == len(ahead.images), f"nothing was drawn (stream {seed})"
    return f"{len(SEEDS)} streams, {announced} announced" if announced else "announces no draws"


def every_row_and_column_is_mixed(subject: Subject) -> str:
    """Some mixed batches change every row and every column of long images in both directions.

    Else: draw rows from the height and columns from the width of the images.
    """
    if "input" not in subject.make().sites:
        return "does not mix images"
    for size in LONG:
        images = noise(6, size)
        changed = torch.zeros(size, dtype=torch.bool)
        for seed in range(MOST_STREAMS):
            mixed = mix(subject, images, seed).images[: len(images)]
            changed |= (mixed != images).any(0).any(0)
            if bool(changed.any(0).all() and changed.any(1).all()):
                break
        if not changed.any():
            return "never mixes"
        for axis, name in ((1, "row"), (0, "column")):
            idle = torch.nonzero(~changed.any(axis)).flatten().tolist()
            assert not idle, f"{name} {idle[0]} of {size[0]}x{size[1]} pixels is never mixed"
    return " and ".join(f"{height}x{width}" for height, width in LONG) + " pixels"


def identical_images_are_unchanged(subject: Subject) -> str:
    """Mixing identical images leaves them unchanged.

    Else: make the weights of each pixel sum to 1, and do not move pixels.
    """
    images = noise(1, (8, 12)).expand(6, -1, -1, -1).contiguous()
    largest = 0.0
    for seed in SEEDS:
        gap = float((mix(subject, images, seed).images - images).abs().max())
        assert gap <= TOLERANCE, f"equal images changed by {gap:.3f} (stream {seed})"
        largest = max(largest, gap)
    return within(largest)

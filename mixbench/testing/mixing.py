"""What `Method.mix` owes: labels that say what the pixels hold, and nothing touched beside.

The most telling check lights image i only in channel i: after mixing, a channel's mean is exactly
the share of its image, and must be what `Sources` says. Images are never square and batches never
as many as classes, so that exchanged axes show.
"""

import torch

from mixbench.testing.measuring import TOLERANCE, unchanged_global_randomness, within
from mixbench.testing.toy import CLASSES, SEEDS, SIZES, Subject, mix, mixes, noise


def labels_say_what_the_pixels_hold(subject: Subject) -> str:
    """The weights of `Sources` are the shares of the pixels.

    Else: take the weights from the mask that was applied, after clipping and rounding.
    """
    largest = 0.0
    for where, mixed in mixes(subject):
        sources = mixed.sources
        shares = mixed.step.images.mean((2, 3))[sources.index]  # of every source, by channel
        said = (shares * sources.weight[..., None]).sum(1)
        gap = float((mixed.images.mean((2, 3)) - said).abs().max())
        assert gap <= TOLERANCE, f"weights are {gap:.3f} away from the pixels' shares {where}"
        largest = max(largest, gap)
    return within(largest)


def weights_are_shares(subject: Subject) -> str:
    """Weights are float32, non-negative, and rows sum to 1.

    Else: return `Sources.pair(partner, share)`, or divide the weights by their sum.
    """
    largest = 0.0
    for where, mixed in mixes(subject):
        weight = mixed.sources.weight
        assert weight.dtype == torch.float32, f"weights are {weight.dtype} {where}"
        assert float(weight.min()) >= 0, f"a weight is {float(weight.min()):.3f} {where}"
        gap = float((weight.sum(1) - 1).abs().max())
        assert gap <= TOLERANCE, f"rows of weights are {gap:.3f} away from 1 {where}"
        largest = max(largest, gap)
    return within(largest)


def sources_are_in_the_batch(subject: Subject) -> str:
    """Indices are int64, one row per image, and point into the batch.

    Else: index the batch that `step.images` is, on the device of the images.
    """
    most = 0
    for where, mixed in mixes(subject):
        index, weight = mixed.sources
        assert index.device == mixed.step.images.device, f"indices are on {index.device} {where}"
        assert index.device == weight.device, f"weights are on {weight.device} {where}"
        assert index.dtype == torch.int64, f"indices are {index.dtype} {where}"
        assert index.shape == weight.shape == (6, index.shape[-1]), f"shape {index.shape} {where}"
        assert int(index.min()) >= 0, f"an index is {int(index.min())} {where}"
        assert int(index.max()) < len(mixed.step.images), f"an index is out of the batch {where}"
        most = max(most, index.shape[-1])
    return f"up to {most} sources of an image"


def shape_and_dtype_stay(subject: Subject) -> str:
    """The mixed batch has the shape and type of what went in, for every size of batch.

    Else: work for every size and for a batch of one; keep the images' type.
    """
    for number in (1, 2, 7):
        for size in SIZES:
            images = noise(number, size)
            mixed = mix(subject, images, seed=1).images
            assert mixed.shape == images.shape, f"{tuple(images.shape)} became {mixed.shape}"
            assert mixed.dtype == images.dtype, f"{images.dtype} became {mixed.dtype}"
    return "batches of 1, 2 and 7, every size"


def bfloat16_stays_and_weights_do_not_follow(subject: Subject) -> str:
    """Images in bfloat16 stay so; weights remain float32.

    Else: make what is mixed of the images' type, and weights of float32.
    """
    for seed in SEEDS:
        mixed = mix(subject, noise(6, (8, 12)).bfloat16(), seed)
        assert mixed.images.dtype == torch.bfloat16, f"bfloat16 became {mixed.images.dtype}"
        assert mixed.sources.weight.dtype == torch.float32, "weights followed to bfloat16"
    return f"{len(SEEDS)} streams"


def input_is_left_alone(subject: Subject) -> str:
    """Mixing modifies neither the images nor the targets that it is given.

    Else: clone what you write into, or build a new batch.
    """
    for seed in SEEDS:
        images = noise(6, (8, 12))
        before = images.clone()
        step = mix(subject, images, seed).step
        assert torch.equal(images, before), f"the images were modified (stream {seed})"
        assert torch.equal(step.targets[:6], torch.arange(6) % CLASSES), "targets were modified"
    return f"{len(SEEDS)} streams, bit by bit"


def same_stream_same_result(subject: Subject) -> str:
    """Equal streams give equal results, bit by bit.

    Else: draw from `step.rng` alone; no clock, no state between steps.
    """
    for seed in SEEDS:
        first, second = (mix(subject, noise(6, (8, 12)), seed) for _ in range(2))
        assert torch.equal(first.images, second.images), f"images differ (stream {seed})"
        assert torch.equal(first.sources.weight, second.sources.weight), "weights differ"
    return f"{len(SEEDS)} streams, bit by bit"


def other_stream_other_result(subject: Subject) -> str:
    """A method that mixes at all draws anew in each step.

    Else: draw in `mix`, not once in `__init__`.
    """
    images = noise(6, (8, 12))
    results = [mix(subject, images, seed).images for seed in SEEDS]
    untouched = all(torch.equal(result, images) for result in results)
    varied = any(not torch.equal(results[0], other) for other in results[1:])
    assert untouched or varied, f"{len(results)} streams gave one and the same result"
    return f"{len(SEEDS)} streams"


def draws_only_from_its_stream(subject: Subject) -> str:
    """No global random state is used or set.

    Else: hand `generator=step.rng` to whatever draws.
    """
    with unchanged_global_randomness():
        for seed in SEEDS:
            mix(subject, noise(6, (8, 12)), seed)
    return "torch, numpy and Python untouched"


def alike_images_stay(subject: Subject) -> str:
    """Mixing an image with itself changes nothing.

    Else: let the shares of every pixel sum to 1, and move no pixel.
    """
    images = noise(1, (8, 12)).expand(6, -1, -1, -1).contiguous()
    largest = 0.0
    for seed in SEEDS:
        gap = float((mix(subject, images, seed).images - images).abs().max())
        assert gap <= TOLERANCE, f"equal images came back {gap:.3f} apart (stream {seed})"
        largest = max(largest, gap)
    return within(largest)

"""What a GPU makes of it: kernels, recorded steps, packed runs, and the share of mixing.

    python -m benchmarks.gpu              (under ten minutes on one card)
    python -m benchmarks.gpu --try        (that it runs, on a processor, in small; writes nothing)

Everything is timed in turns, with the device waited for. ResNet-32 and PreAct-ResNet-164 are of
CIFAR's size, ResNet-50 of 224 pixels in bfloat16 and channels_last. The plain loop is what one
writes by hand, with images from a DataLoader. The search runs beside its floor, images forwarded in
a second, and beside Algorithm 2. Writes benchmarks/gpu.json.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measuring import in_turns, publish, ratio, settle
from benchmarks.scale import give_pairs
from benchmarks.search import SETTINGS, compare
from mixbench import kernels
from mixbench.contract import Backbone, ClassIndex, Normalization, Step, Trained
from mixbench.contract.loading import load_method, load_task
from mixbench.declare import Recipe
from mixbench.registry.units import find
from mixbench.search.fitness import HeldOut
from mixbench.streams import generator
from mixbench.train.cuda_graphs import CudaGraphs
from mixbench.train.distributed import SINGLE_PROCESS
from mixbench.train.gradients import EagerGradients, Gradients, GraphGradients
from mixbench.train.mixing import SharedStep
from mixbench.vision.images.augment import CropFlip
from mixbench.vision.images.splits import ResidentSplit

Way = Callable[[], object]
PIXELS = Normalization((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))


class Trial:
    """What is measured, large or small.

    Parameters
    ----------
    small
        On a processor, to see that it runs.
    """

    def __init__(self, *, small: bool) -> None:
        self.small = small
        self.device = torch.device("cpu" if small else "cuda")
        self.turns, self.steps = (1, 1) if small else (7, 20)
        self.runs = 2 if small else 18

    def timed(self, ways: dict[str, Way], steps: int | None = None) -> dict[str, list[float]]:
        """Return the seconds of each way, of the device."""
        return in_turns(
            {name: self._waited(way, steps or self.steps) for name, way in ways.items()}, self.turns
        )

    def _waited(self, way: Way, steps: int) -> Way:
        def run() -> None:
            again(way, steps)
            if not self.small:
                torch.cuda.synchronize()

        return run


def mixes(trial: Trial) -> dict[str, float]:
    """G1: the kernels, in copies of a batch of 256 images in bfloat16."""
    from torchvision.transforms import v2

    number, side = (8, 32) if trial.small else (256, 224)
    x = torch.randn(number, 3, side, side, device=trial.device, dtype=torch.bfloat16)
    classes = torch.randint(10, (number,), device=trial.device)
    partner = torch.randperm(number, device=trial.device)
    own = torch.rand(number, 16, device=trial.device) < 0.5
    index = torch.where(own, torch.arange(number, device=trial.device)[:, None], partner[:, None])
    box, copy = kernels.Box(side // 4, 3 * side // 4, side // 4, 3 * side // 4), torch.empty_like(x)
    mixup, cutmix = v2.MixUp(num_classes=10), v2.CutMix(num_classes=10)
    times = trial.timed({
        "copy": lambda: copy.copy_(x),
        "blend": lambda: kernels.blend(x, partner, 0.3),
        "blend, rolled": lambda: kernels.blend_rolled(x, 0.3),
        "box": lambda: kernels.paste_box(x, partner, box),
        "grid": lambda: kernels.compose_grid(x, index, 4),
        "blend, torchvision": lambda: mixup(x, classes),
        "box, torchvision": lambda: cutmix(x, classes),
    })
    return {name: ratio(times, name, "copy") for name in times}


class Training:
    """A net in training on made-up images of CIFAR's size, a batch at a time.

    Parameters
    ----------
    record
        Whether its steps are recorded.
    """

    def __init__(self, trial: Trial, model: str, method: str, *, record: bool = False) -> None:
        self.task = load_task(find("task", "cifar10"))()
        self.recipe = Recipe(model=model, epochs=1)
        self.method = load_method(find("method", method))()
        self.model = self.task.build(model)
        self.method.bind(self.model, self.task)
        self.model.to(trial.device)
        self.method.to(trial.device)
        shared = SharedStep(self.model.train(), self.method, SINGLE_PROCESS)
        self.gradients: Gradients = EagerGradients(shared, self.recipe)
        if record and not trial.small:
            self.gradients = GraphGradients(shared, self.recipe, CudaGraphs(), print)
        self.optimizer = torch.optim.SGD(shared.parameters(), lr=0.01, momentum=0.9)
        self.split, self.device, self.number = resident(trial), trial.device, 0
        self.stream = None if trial.small else torch.cuda.Stream()

    def batch(self) -> Step:
        """Return the next batch, augmented."""
        self.number += 1
        index = torch.randint(len(self.split), (100,), generator=generator(0, "order", self.number))
        images = self.split.read(index, generator(0, "augment", self.number))
        targets = self.split.targets[index].to(self.device)
        rng = generator(0, "mix", self.number)
        return Step(
            images, targets, rng=rng, task=self.task, model=self.model, split=self.split
        )  # fmt: skip

    def step(self) -> None:
        """Train on one batch."""
        self.gradients(self.batch())
        self.optimizer.step()

    def mix(self) -> None:
        """Read and mix a batch, without training on it."""
        step = self.batch()
        self.method.mix(step.images, step)


def resident(trial: Trial) -> ResidentSplit:
    """Return made-up images on the device."""
    number = 1000 if trial.small else 50_000
    rng = generator(0, "synthetic")
    images = torch.randint(256, (number, 3, 32, 32), generator=rng, dtype=torch.uint8)
    targets = torch.randint(10, (number,), generator=rng)
    by_class = ClassIndex(targets, 10)
    return ResidentSplit(images, targets, by_class, PIXELS, CropFlip(4, flip=0.5)).to(trial.device)


def plain(trial: Trial) -> Way:
    """Return a step of a loop by hand: images from a DataLoader with workers, mixed as printed."""
    training = Training(trial, "resnet32", "none")
    images, targets = training.split.images.cpu(), training.split.targets
    workers = 0 if trial.small else 8
    loader = DataLoader(
        TensorDataset(images, targets), 100, shuffle=True, num_workers=workers,
        pin_memory=not trial.small, drop_last=True, persistent_workers=workers > 0,
    )  # fmt: skip

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from loader

    source = batches()

    def step() -> None:
        x, y = (t.to(trial.device, non_blocking=True) for t in next(source))
        x, partner = x.float() / 255, torch.randperm(len(x), device=trial.device)
        out = training.model(0.3 * x + 0.7 * x[partner]).out
        loss = 0.3 * F.cross_entropy(out, y) + 0.7 * F.cross_entropy(out, y[partner])
        training.optimizer.zero_grad()
        loss.backward()
        training.optimizer.step()

    return step


def steps(trial: Trial) -> dict[str, float]:
    """G2 and G4: a step of ResNet-32, and the share that reading and mixing have in it."""
    computed = Training(trial, "resnet32", "mixup")
    recorded = Training(trial, "resnet32", "mixup", record=True)
    inside = [
        Training(trial, "resnet32", "manifold_mixup", record=record) for record in (False, True)
    ]
    for _ in range(1 if trial.small else 60):  # until it is recorded, at each of three sites
        recorded.step()
        inside[1].step()
    fixed = recorded.batch()
    guided, random = (
        Training(trial, "resnet32", name) for name in ("guided_patchmix", "random_patchmix")
    )
    give_pairs(guided.method)
    guided.method.to(trial.device)
    times = trial.timed({
        "guided": guided.step,
        "random": random.step,
        "plain": plain(trial),
        "computed": computed.step,
        "recorded": recorded.step,
        "recorded, same batch": lambda: recorded.gradients(replace_rng(fixed)),
        "read and mixed": recorded.mix,
        "inside, computed": inside[0].step,
        "inside, recorded": inside[1].step,
    })
    return {
        "recorded_times_faster_than_plain": ratio(times, "plain", "recorded"),
        "recorded_times_faster_than_computed": ratio(times, "computed", "recorded"),
        "inside_recorded_times_faster_than_computed": ratio(
            times, "inside, computed", "inside, recorded"
        ),
        "recorded_over_the_same_batch": ratio(times, "recorded", "recorded, same batch"),
        "read_and_mixed_share": ratio(times, "read and mixed", "recorded"),
        "guided_patchmix_over_random_patchmix": ratio(times, "guided", "random"),
    }


def replace_rng(step: Step) -> Step:
    """Return a step again: its stream from the start."""
    step.rng = generator(0, "mix")
    return step


def packs(trial: Trial) -> dict[str, dict[str, float]]:
    """G3: many runs a step each, recorded and on streams of their own, or one after the other."""
    models = ("resnet8",) if trial.small else ("resnet32", "preact_resnet164")
    return {model: pack(trial, model) for model in models}


def again(way: Way, number: int) -> None:
    """Do something so many times."""
    for _ in range(number):
        way()


def pack(trial: Trial, model: str) -> dict[str, float]:
    """Return how many times faster packed runs of one net are."""
    eager = Training(trial, model, "mixup")
    runs = [Training(trial, model, "mixup", record=True) for _ in range(trial.runs)]
    for run in runs:
        for _ in range(1 if trial.small else 12):  # until it is recorded
            run.step()

    def packed() -> None:
        for run in runs:
            with torch.cuda.stream(run.stream):  # none on a processor, where nothing happens
                run.step()

    times = trial.timed(
        {
            "computed": partial(again, eager.step, len(runs)),
            "recorded": partial(again, runs[0].step, len(runs)),
            "packed": packed,
        },
        steps=1 if trial.small else 5,
    )
    return {
        "times_faster_than_computed": ratio(times, "computed", "packed"),
        "times_faster_than_recorded": ratio(times, "recorded", "packed"),
    }


@torch.no_grad()
def forwards(trial: Trial) -> dict[str, float]:
    """G5 and G7: images that a search forwards in a second, in bfloat16 and channels_last."""
    found = {}
    task = load_task(find("task", "cifar10"))()
    for name in ("resnet32", "preact_resnet164"):
        model = task.build(name).to(trial.device).eval().to(memory_format=torch.channels_last)
        number = 8 if trial.small else 2048
        x = torch.randn(number, 3, 32, 32, device=trial.device)
        x = x.contiguous(memory_format=torch.channels_last)

        def forward(model: Backbone = model, x: Tensor = x) -> None:
            with torch.autocast(trial.device.type, torch.bfloat16):
                model(x)

        (times,) = trial.timed({name: forward}).values()
        found[f"{name}_images_per_s"] = number * trial.steps / sorted(times)[len(times) // 2]
    return found


def searched(trial: Trial) -> dict[str, float]:
    """G5: the search of Guided PatchMix, 100 x 60, beside Algorithm 2; the net is not trained."""
    name = "resnet8" if trial.small else "preact_resnet164"
    training = Training(trial, name, "random_patchmix")
    number = len(training.split) // 10
    images = training.split.read(torch.arange(number), None)
    held_out = HeldOut(images, ClassIndex(training.split.targets[:number], 10), 0)
    settings = replace(SETTINGS, population=6, generations=2) if trial.small else SETTINGS
    found = compare(Trained(training.model.eval(), training.method.eval()), held_out, settings)
    wanted = ("search_s", "times_faster", "times_fewer_forwards", "largest_fitness_difference")
    speed = found["search_forwards"] / found["search_s"]
    return {"images_per_s": speed, **{fact: found[fact] for fact in wanted}}


def large(trial: Trial) -> dict[str, float]:
    """G6: a step of ResNet-50 at 224 pixels by the harness, mixed and not, over one by hand."""
    task = load_task(find("task", "imagenet"))()
    number, side = (2, 64) if trial.small else (128, 224)
    x = torch.randn(number, 3, side, side, device=trial.device)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.randint(1000, (number,), device=trial.device)
    recipe = replace(Recipe(model="resnet50", epochs=1), precision="bfloat16")

    def harness(method_name: str) -> Way:
        method = load_method(find("method", method_name))()
        model = task.build("resnet50").to(trial.device).to(memory_format=torch.channels_last)
        gradients = EagerGradients(SharedStep(model.train(), method, SINGLE_PROCESS), recipe)
        return lambda: gradients(Step(x, y, rng=generator(0, "mix"), task=task, model=model))

    net = task.build("resnet50").to(trial.device).to(memory_format=torch.channels_last)

    def hand() -> None:
        with torch.autocast(trial.device.type, torch.bfloat16):
            loss = F.cross_entropy(net(x).out, y)
        net.zero_grad()
        loss.backward()

    times = trial.timed({"hand": hand, "none": harness("none"), "cutmix": harness("cutmix")}, 3)
    return {
        "harness_over_plain_loop": ratio(times, "none", "hand"),
        "mixed_over_none": ratio(times, "cutmix", "none"),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--try", dest="small", action="store_true")
    small = parser.parse_args().small
    if not small and not torch.cuda.is_available():
        parser.exit(2, "There is no GPU here: `--try` shows on a processor that it runs.\n")
    settle()
    trial = Trial(small=small)
    results: dict[str, Any] = {
        part.__name__: part(trial) for part in (mixes, steps, packs, forwards, searched, large)
    }
    if small:
        print(results)
    else:
        publish("gpu", results)


if __name__ == "__main__":
    main()

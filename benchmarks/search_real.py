"""What searches find with a real net on real photographs, and what is left of it on other images.

    python -m benchmarks.search_real TINY WORK      (two cores: half an hour, then two hours)

TINY is the folder of Tiny-ImageNet. A small network is trained with Random PatchMix on its 200
classes for ten epochs. Each search then looks for 50 pairs and masks with the images that were held
out of this training, with a small budget and with ten times as much. All results, and random pairs,
are scored once more on the official validation images, which no search saw. A stopped benchmark
continues from WORK. Writes benchmarks/search_real.json after every search.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import publish, settle
from mixbench.contract import Backbone, Preparation, Trained
from mixbench.contract.loading import load_method
from mixbench.registry.units import find
from mixbench.search.fitness import HeldOut, Scorer
from mixbench.search.genetic import Settings
from mixbench.search.space import Space
from mixbench.search.strategies import SearchConfig, patch_logits, random_pairs, run_search
from mixbench.storage.files import read_json, write_json
from mixbench.train.checkpoints import DiskJournal
from mixbench.train.loop import train
from mixbench.train.setup import Setup, begin, load_weights
from mixbench.vision.models.build import sized
from mixbench.vision.models.residual import ResidualNet
from tasks.tiny_imagenet import TinyImagenet

EPOCHS, PER_PAIR, AGAIN = 10, 16, 128  # AGAIN: image pairs of the second scoring
SMALL, TIMES = 900_000, 10
SPACE = Space(num_classes=200, grid=4, num_pairs=50, same_class=False)
SETTINGS = Settings(
    population=100, generations=250, crossover=0.5, mutation=0.3, tournament=3, patience=0,
    maximise=False, reading="dynamics", exchanged=1, budget=SMALL,
)  # fmt: skip
LARGE = replace(SETTINGS, population=1000, budget=TIMES * SMALL)
SEARCHES = {
    "genetic, dynamics": ("genetic", SETTINGS),
    "genetic, text": ("genetic", replace(SETTINGS, reading="text")),
    "direct": ("direct", SETTINGS),
    f"genetic, dynamics, {TIMES} times the population": ("genetic", LARGE),
    f"direct, {TIMES} times the budget": ("direct", LARGE),
}


class SmallNetTask(TinyImagenet):
    """Tiny-ImageNet with a net that two cores can train: it halves the images at once."""

    def build(self, model: str) -> Backbone:  # noqa: ARG002  # there is only one
        """Return a residual network of 14 layers whose last map has 8x8 positions."""
        net = ResidualNet(14, self.channels, self.num_classes, strides=(2, 2, 2))
        return sized(net, self.channels, self.image_size)


@dataclass(frozen=True)
class Net:
    """The trained network.

    Attributes
    ----------
    setup
        Setup of its training.
    trained
        Model and method after the last epoch.
    curve
        Its learning curve.
    """

    setup: Setup
    trained: Trained
    curve: list[dict[str, float]]


def trained_net(data: Path, work: Path) -> Net:
    """Train the network, or load it if it was trained before."""
    recipe = replace(
        TinyImagenet.protocols["quick"], epochs=EPOCHS, precision="bfloat16",
        memory_format="channels_last",
    )  # fmt: skip
    method = load_method(find("method", "random_patchmix"))()
    device = torch.device("cpu")
    setup = Setup(method, SmallNetTask(), "resnet14", recipe, 0, data, device, workers=0)
    curve, weights = work / "curve.json", work / "weights.pt"
    if not weights.exists():
        run = train(setup, DiskJournal(work, 300, print))
        torch.save([run.model.state_dict(), method.state_dict()], weights)
        write_json(curve, run.curve)
    run = begin(setup)
    of_model, of_method = torch.load(weights, weights_only=True)
    state = {f"model.{n}": t for n, t in of_model.items()}
    load_weights(run.model, method, state | {f"method.{n}": t for n, t in of_method.items()})
    return Net(setup, Trained(run.model.eval(), method.eval()), read_json(curve))


def scored_again(net: Net) -> Callable[[Any, Any], float]:
    """Return a function that scores pairs and masks on images that no search saw."""
    test = net.setup.task.load("test", net.setup.folder, 0)
    held_out = HeldOut.of(test, 1, torch.device("cpu"))
    scorer = Scorer(SPACE, held_out, patch_logits(*net.trained), AGAIN, by_loss=False)
    return lambda ids, masks: float(scorer(ids, masks).mean())


def preparation(net: Net, work: Path) -> Preparation:
    """Return what a search gets; its progress is printed."""
    setup = net.setup
    work.mkdir(exist_ok=True)

    def report(done: int, of: int, shown: Any) -> None:
        print(f"\r  {work.name}: {done} of {of} {dict(shown)}", end="")

    return Preparation(
        task=setup.task, model="resnet14", recipe=setup.recipe, seed=0, folder=setup.folder,
        device=setup.device, trained={"scorer": net.trained}, scratch=work, results=work,
        report=report,
    )  # fmt: skip


def main() -> None:
    """Train the network, search and score again; a stopped benchmark continues."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    settle(threads=2)
    net = trained_net(arguments.data, arguments.work)
    again = scored_again(net)
    fixed = [random_pairs(SPACE, seed) for seed in range(20)]
    values = [again(found.ids, found.masks) for found in fixed]
    results: dict[str, Any] = {
        "validation_top1": net.curve[-1]["validation_top1"],
        "pairs": SPACE.num_pairs,
        "image_pairs": PER_PAIR,
        "random": {"unseen": float(np.mean(values)), "std": float(np.std(values))},
    }
    for number, (name, (strategy, settings)) in enumerate(SEARCHES.items()):
        config = SearchConfig(
            strategy, Path(), by_loss=False, image_pairs=PER_PAIR, settings=settings
        )
        place = arguments.work / f"search-{number}"
        if not (place / "found.json").exists():
            found = run_search(config, SPACE, preparation(net, place))
            assert found.scores is not None
            told = json.loads((place / "search.json").read_text())
            one = {
                "images": told["forwards"],
                "seen": float(found.scores.mean()),
                "unseen": again(found.ids, found.masks),
            }
            if found.first_pairs_left is not None:
                one["first_pairs_left"] = found.first_pairs_left
            write_json(place / "found.json", one)
        one = read_json(place / "found.json")
        gain = results["random"]["unseen"] - one["unseen"]
        kept = gain / (results["random"]["unseen"] - one["seen"])
        results[name] = one | {"gain": gain, "kept": kept}
        publish("search_real", results)


if __name__ == "__main__":
    main()

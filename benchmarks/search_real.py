"""Train the net."""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from mixbench.contract import Backbone
from mixbench.contract.loading import load_method
from mixbench.registry.units import find
from mixbench.train.checkpoints import DiskJournal
from mixbench.train.loop import train
from mixbench.train.setup import Setup
from mixbench.vision.models.build import sized
from mixbench.vision.models.residual import ResidualNet
from tasks.tiny_imagenet import TinyImagenet

EPOCHS = 10


class SmallNetTask(TinyImagenet):
    """Tiny-ImageNet with a net that two cores can train: it halves the images at once."""

    def build(self, model: str) -> Backbone:  # noqa: ARG002
        """Return a residual network of 14 layers whose last map has 8x8 positions."""
        net = ResidualNet(14, self.channels, self.num_classes, strides=(2, 2, 2))
        return sized(net, self.channels, self.image_size)


def main() -> None:
    """Train the net; a stopped training resumes with the same command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    task = SmallNetTask()
    recipe = replace(
        TinyImagenet.protocols["quick"], epochs=EPOCHS, precision="bfloat16",
        memory_format="channels_last",
    )  # fmt: skip
    method = load_method(find("method", "random_patchmix"))()
    setup = Setup(
        method, task, "resnet14", recipe, 0, arguments.data, torch.device("cpu"), workers=0
    )
    run = train(setup, DiskJournal(arguments.work, 300, print))
    print(run.curve)


if __name__ == "__main__":
    main()

"""RecursiveMix: paste the whole mixed image of the step before, made smaller, into each image.

Paper    Yang et al., RecursiveMix: Mixed Learning with History, NeurIPS 2022, arXiv:2203.06844, §3
Source   implus/RecursiveMix-pytorch@ed381bf, utils.py:356-390, main.py:195-229,
         models_imagenet/resnet.py:228-262
Differs  in the first steps of an epoch: the source forgets the history there, this file does not.
         Labels of the history are not smoothed. The share of the loss that compares predictions is
         0.5 in the source for ImageNet, and 0.1 for CIFAR-10
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate, one_hot
from torchvision.ops import roi_align

from mixbench.contract import (
    Backbone,
    Method,
    MixedTargetLoss,
    Output,
    Sources,
    Split,
    Step,
    Task,
    check_single_label,
)
from mixbench.declare import NonNegative, PositiveFraction
from mixbench.errors import UsageError
from mixbench.kernels import clipped_box

HISTORY = ("images", "labels", "logits")  # of the last mixed batch


class RecursiveMix(Method):
    """Paste the image that had the same place in the last mixed batch, with its mixed label.

    Parameters
    ----------
    largest
        Largest share of the image that is replaced; the share is uniform from 0.
    consistency
        Weight of the loss that compares the prediction for the box, by a classifier of its own,
        with the prediction for that image in the step before.
    """

    version = 1
    exempt = {"same_rng_same_result": "it mixes with the batch of the step before, by design"}

    def __init__(self, largest: PositiveFraction = 0.5, consistency: NonNegative = 0.1) -> None:
        super().__init__()
        self.largest, self.consistency = largest, consistency
        self.head: torch.nn.Module = torch.nn.Identity()
        self._num_classes = 0

    def check(self, task: Task, held_out: Split | None) -> None:  # noqa: ARG002  # the contract
        """Check that every image of the task has one class."""
        check_single_label(task, "recursivemix")

    def bind(self, model: Backbone, task: Task) -> None:
        """Create the classifier of the box."""
        self._num_classes = task.num_classes
        if self.consistency:
            self.head = task.new_classifier(model.feature_dim)

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        """Return the mixed batch; what is not in the batch is told to the loss."""
        labels = one_hot(step.targets, self._num_classes).float()
        share = self.largest * float(torch.rand((), generator=step.rng))
        size = (x.shape[-2], x.shape[-1])
        centre = [int(torch.randint(n, (), generator=step.rng)) for n in size]
        half = [int(n * share**0.5) // 2 for n in size]
        box = clipped_box((centre[0], centre[1]), (half[0], half[1]), size)
        past = self._history(len(x))
        sources, mixed = Sources.unmixed(x), x
        if past is not None and box.area:
            images, of_past, logits = past
            shape = box.bottom - box.top, box.right - box.left
            mixed = x.clone()
            inside = mixed[..., box.top : box.bottom, box.left : box.right]
            inside.copy_(interpolate(images, shape))
            lam = 1 - box.area / x[0, 0].numel()
            labels = lam * labels + (1 - lam) * of_past
            corners = x.new_tensor([box.left / size[1], box.top / size[0],
                                    box.right / size[1], box.bottom / size[0]])  # fmt: skip
            shown = (of_past, logits, corners.float().expand(len(x), -1))
            known = torch.full((len(x), 1), lam, device=x.device)
            sources = Sources(sources.index, sources.weight, (known, *shown))
        self._keep("images", mixed.detach().float())
        self._keep("labels", labels)
        # Filled in by the loss: a process knows the predictions for its own rows only.
        self._keep("logits", torch.full_like(labels, torch.nan))
        return mixed, sources

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        """Return the loss of the image, of the box, and of the consistency of the box.

        Raises
        ------
        UsageError
            If the recipe has another loss.
        """
        if isinstance(step.loss, MixedTargetLoss):
            raise UsageError("recursivemix needs the cross-entropy: leave out bce_loss.")
        own = sources.index[:, 0]
        losses = step.loss(output.out, step.targets[own])
        if sources.more:
            lam, labels, logits, corners = sources.more
            lam = lam[:, 0]
            of_past = -(labels * output.out.float().log_softmax(1)).sum(1)
            losses = lam * losses + (1 - lam) * of_past
            if self.consistency:
                known = logits.isfinite().all(1)
                expected = logits.nan_to_num().softmax(1)
                given = cross_entropy(self._of_box(output.features, corners), expected,
                                      reduction="none")  # fmt: skip
                losses = losses + self.consistency * (1 - lam) * known * given
        elif self.consistency:  # processes that train together need gradients of all parameters
            losses = losses + 0 * sum(p.sum() for p in self.head.parameters())
        kept = self.get_buffer("logits")
        kept.index_copy_(0, own, output.out.detach().to(kept.dtype))
        return losses.mean()

    def _of_box(self, features: Tensor, corners: Tensor) -> Tensor:
        """Return the logits of the box in the last feature map, (B, K)."""
        height, width = features.shape[-2:]
        scale = features.new_tensor([width, height, width, height]).float()
        number = torch.arange(len(features), device=features.device)[:, None]
        boxes = torch.cat([number, corners * scale], 1)
        pooled = roi_align(features.float(), boxes, (1, 1), aligned=True)
        logits: Tensor = self.head(pooled.flatten(1)).float()
        return logits

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *more: Any) -> None:
        """Take over the history of a checkpoint; a new method has none."""
        for name in HISTORY:
            if (found := state_dict.get(prefix + name)) is not None:
                self.register_buffer(name, torch.empty_like(found))
        super()._load_from_state_dict(state_dict, prefix, *more)

    def _history(self, size: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return images, labels and logits of the last batch, if it had as many images."""
        kept = dict(self.named_buffers(recurse=False))
        if len(kept.get("images", ())) != size:
            return None
        return kept["images"].clone(), kept["labels"].clone(), kept["logits"].clone()

    def _keep(self, name: str, values: Tensor) -> None:
        """Keep values for the next step, in place: a captured step writes where they were."""
        kept = dict(self.named_buffers(recurse=False)).get(name)
        if kept is not None and kept.shape == values.shape:
            kept.copy_(values)
        else:
            self.register_buffer(name, values.clone())

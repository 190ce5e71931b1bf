"""The contract checks catch what goes wrong in mixing code: each fault here was made on purpose."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mixbench.contract import Backbone, Draws, Method, Output, Sources, Step, Task
from mixbench.contract.loading import load_method
from mixbench.kernels import Box, beta, blend, clipped_box, compose_grid, paste_box, permutation
from mixbench.registry.units import find
from mixbench.testing import METHOD_CHECKS, Subject, mixing, training

Mixed = tuple[Tensor, Sources]
GuidedPatchMix = load_method(find("method", "guided_patchmix"))
CutMix = load_method(find("method", "cutmix"))
RandomPatchMix = load_method(find("method", "random_patchmix"))
SaliencyMix = load_method(find("method", "saliencymix"))


class Blend(Method):
    """A sound method, for faults to be put into."""

    version = 1

    def lam(self, step: Step) -> float:
        return float(beta(1.0, step.rng))

    def mix(self, x: Tensor, step: Step) -> Mixed:
        lam, partner = self.lam(step), permutation(len(x), step.rng, x.device)
        return self.blended(x, partner, lam)

    def blended(self, x: Tensor, partner: Tensor, lam: float) -> Mixed:
        return blend(x, partner, lam), Sources.pair(partner, lam)


class ExchangedWeights(Blend):
    def blended(self, x: Tensor, partner: Tensor, lam: float) -> Mixed:
        return blend(x, partner, lam), Sources.pair(partner, 1 - lam)


class PartnerForgottenInTargets(Blend):
    def blended(self, x: Tensor, partner: Tensor, lam: float) -> Mixed:
        return blend(x, partner, lam), Sources.pair(torch.arange(len(x)), lam)


class WeightsBeyondOne(Blend):
    def blended(self, x: Tensor, partner: Tensor, lam: float) -> Mixed:
        index, weight, _ = Sources.pair(partner, lam)
        return blend(x, partner, lam), Sources(index, weight + 0.1)


class WeightsOfTheImagesType(Blend):
    def blended(self, x: Tensor, partner: Tensor, lam: float) -> Mixed:
        index, weight, _ = Sources.pair(partner, lam)
        return blend(x, partner, lam), Sources(index, weight.to(x.dtype))


class InPlace(Blend):
    def blended(self, x: Tensor, partner: Tensor, lam: float) -> Mixed:
        x.copy_(blend(x, partner, lam))
        return x, Sources.pair(partner, lam)


class GlobalTorch(Blend):
    def lam(self, step: Step) -> float:
        return float(torch.rand(()))


class GlobalNumpy(Blend):
    def lam(self, step: Step) -> float:
        return float(np.random.beta(1, 1))  # noqa: NPY002


class ItsOwnClock(Blend):
    """Draws from a generator of its own, which goes on from step to step."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = torch.Generator().manual_seed(SEEDS.pop())

    def lam(self, step: Step) -> float:
        return float(torch.rand((), generator=self.rng))


SEEDS = list(range(10_000))


class SameMixEveryStep(Blend):
    def mix(self, x: Tensor, step: Step) -> Mixed:
        return self.blended(x, torch.arange(len(x)).flip(0), 0.3)


class SwappedAxes(Method):
    version = 1

    def mix(self, x: Tensor, step: Step) -> Mixed:
        width, height = x.shape[-2:]
        centre = int(torch.randint(height, (), generator=step.rng)), width // 2
        box = clipped_box(centre, (height // 4, width // 4), (height, width))
        partner = permutation(len(x), step.rng, x.device)
        return paste_box(x, partner, box), Sources.pair(partner, 1 - box.area / (height * width))


class ClippingForgotten(Method):
    version = 1

    def mix(self, x: Tensor, step: Step) -> Mixed:
        height, width = x.shape[-2:]
        centre = (
            int(torch.randint(height, (), generator=step.rng)),
            int(torch.randint(width, (), generator=step.rng)),
        )
        box = clipped_box(centre, (height // 4, width // 4), (height, width))
        partner = permutation(len(x), step.rng, x.device)
        drawn = Box(0, 2 * (height // 4), 0, 2 * (width // 4)).area
        return paste_box(x, partner, box), Sources.pair(partner, 1 - drawn / (height * width))


class CellsTransposed(Method):
    version = 1

    def mix(self, x: Tensor, step: Step) -> Mixed:
        own = torch.rand(16, generator=step.rng) < 0.5
        partner = permutation(len(x), step.rng, x.device)
        index = torch.where(own, torch.arange(len(x))[:, None], partner[:, None])
        turned = index.view(-1, 4, 4).transpose(1, 2).flatten(1)
        size = torch.tensor([1.0, 1.0, 1.0, 2.0])  # unequal cells, as 13 and 9 pixels have
        weight = (size[:, None] * size / 25).flatten().expand(len(x), -1)
        return compose_grid(x, turned, 4), Sources(index, weight)


class CellsCountedEqual(RandomPatchMix):  # type: ignore[misc,valid-type]
    def mix(self, x: Tensor, step: Step) -> Mixed:
        mixed, (index, weight, _) = super().mix(x, step)
        return mixed, Sources(index, torch.full_like(weight, 1 / 16))


class NeedsAnEvenBatch(Blend):
    def mix(self, x: Tensor, step: Step) -> Mixed:
        partner = torch.arange(len(x)).view(2, -1).flip(0).flatten()
        return self.blended(x, partner, self.lam(step))


class HeadOutOfSight(RandomPatchMix):  # type: ignore[misc,valid-type]
    """Keeps the head where neither the optimiser nor the checkpoint finds it."""

    def bind(self, model: Backbone, task: Task) -> None:
        super().bind(model, task)
        self._tied = [*self.get_submodule("heads").children()]
        self.heads = nn.ModuleList()


class IdleHead(RandomPatchMix):  # type: ignore[misc,valid-type]
    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        self.patch_loss = False
        return super().loss(output, sources, step)  # type: ignore[no-any-return]


class MixesAtTest(Blend):
    def predict(self, output: Output) -> Tensor:
        return blend(output.out, torch.arange(len(output.out)).flip(0), 0.7)


class OverwritesOddBatches(CutMix):  # type: ignore[misc,valid-type]
    """Writes into the batch without asking, if its size is odd."""

    def mix(self, x: Tensor, step: Step) -> Mixed:
        mixed, sources = super().mix(x.clone(), step)
        if len(x) % 2:
            mixed = x.copy_(mixed)
        return mixed, sources


class ReadsWhatItHasWritten(Blend):
    """Blends image by image in the batch, where it may: later images see mixed partners."""

    def mix(self, x: Tensor, step: Step) -> Mixed:
        lam, partner = self.lam(step), permutation(len(x), step.rng, x.device)
        if not step.may_overwrite(x):
            return self.blended(x, partner, lam)
        for i, j in enumerate(partner.tolist()):
            x[i] = lam * x[i] + (1 - lam) * x[j]
        return x, Sources.pair(partner, lam)


class OwnFixedSeed(Blend):
    """Every instance starts alike, and goes on from step to step."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = torch.Generator().manual_seed(0)

    def mix(self, x: Tensor, step: Step) -> Mixed:
        return self.blended(x, permutation(len(x), self.rng, x.device), self.lam(step))


class KeepsTheFirstDraw(Blend):
    first = 0.0

    def lam(self, step: Step) -> float:
        self.first = self.first or super().lam(step)
        return self.first


class ColumnsDrawnFromTheHeight(CutMix):  # type: ignore[misc,valid-type]
    def draw_box(self, size: tuple[int, int], rng: torch.Generator) -> Box:
        height, width = size
        side = float(1 - beta(1.0, rng)) ** 0.5
        row, column = (int(torch.randint(height, (), generator=rng)) for _ in range(2))
        half = int(height * side) // 2, int(width * side) // 2
        return clipped_box((row, column % width), half, size)


class WrongForThreeChannels(Blend):
    def blended(self, x: Tensor, partner: Tensor, lam: float) -> Mixed:
        return blend(x, partner, lam), Sources.pair(partner, lam**0.5 if x.shape[1] == 3 else lam)


class WeightsOfThePartner(SaliencyMix):  # type: ignore[misc,valid-type]
    """Gives every image the weight that its partner's box left."""

    def mix(self, x: Tensor, step: Step) -> Mixed:
        mixed, (index, weight, _) = super().mix(x, step)
        return mixed, Sources(index, weight[index[:, -1]])


class PatchLabelsTransposed(RandomPatchMix):  # type: ignore[misc,valid-type]
    def mean_patch_loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        turned = sources.index.view(-1, self.grid, self.grid).mT.flatten(1)
        loss: Tensor = super().mean_patch_loss(output, Sources(turned, sources.weight), step)
        return loss


class PatchLabelsMirrored(RandomPatchMix):  # type: ignore[misc,valid-type]
    def mean_patch_loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        turned = sources.index.view(-1, self.grid, self.grid).flip(2).flatten(1)
        loss: Tensor = super().mean_patch_loss(output, Sources(turned, sources.weight), step)
        return loss


class LossOfOtherImages(Blend):
    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        return super().loss(output, Sources(sources.index.roll(1, 0), sources.weight), step)


class LossOfExchangedShares(Blend):
    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        return super().loss(output, Sources(sources.index, sources.weight.flip(1)), step)


class LossOfEqualShares(Blend):
    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        halves = torch.full_like(sources.weight, 0.5)
        return super().loss(output, Sources(sources.index, halves), step)


class DetachesTheModel(Blend):
    """Trains the classifier alone."""

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        model = step.model
        detached = output.features.detach().mean((2, 3))
        out = model.classifier(detached)
        return super().loss(Output(out, output.features), sources, step)


class RoundsItsLabel(Blend):
    def blended(self, x: Tensor, partner: Tensor, lam: float) -> Mixed:
        shown = float(lam > 0.5) if x.dtype == torch.bfloat16 else lam
        return blend(x, partner, lam), Sources.pair(partner, shown)


class RandomPairs(GuidedPatchMix):  # type: ignore[misc,valid-type]
    def __init__(self) -> None:
        super().__init__(search="random")


class AnnouncesOtherClasses(RandomPairs):
    def draws(self, size: int, rng: torch.Generator) -> Draws:
        draws: Draws = super().draws(size, rng)
        return draws._replace(classes=draws.classes.flip(0))


class UsesWhatItReplaces(RandomPairs):
    def draws(self, size: int, rng: torch.Generator) -> Draws:
        draws: Draws = super().draws(size, rng)
        return draws._replace(replaced=~draws.replaced)


FAULTS: dict[Callable[[], Method], Callable[[Subject], str]] = {
    ExchangedWeights: mixing.weights_match_pixels,
    PartnerForgottenInTargets: mixing.weights_match_pixels,
    SwappedAxes: mixing.weights_match_pixels,
    ClippingForgotten: mixing.weights_match_pixels,
    CellsTransposed: mixing.weights_match_pixels,
    CellsCountedEqual: mixing.weights_match_pixels,
    WeightsBeyondOne: mixing.weights_sum_to_one,
    WeightsOfTheImagesType: mixing.bfloat16_is_kept_and_weights_are_float32,
    InPlace: mixing.input_is_not_modified,
    GlobalTorch: mixing.draws_only_from_step_rng,
    GlobalNumpy: mixing.draws_only_from_step_rng,
    ItsOwnClock: mixing.same_rng_same_result,
    SameMixEveryStep: mixing.other_rng_other_result,
    NeedsAnEvenBatch: mixing.shape_and_dtype_are_kept,
    HeadOutOfSight: training.state_dict_round_trips,
    IdleHead: training.all_parameters_get_gradients,
    MixesAtTest: training.evaluation_is_unchanged,
    OverwritesOddBatches: mixing.input_is_not_modified,
    ReadsWhatItHasWritten: mixing.weights_match_pixels,
    AnnouncesOtherClasses: mixing.announced_draws_are_drawn,
    UsesWhatItReplaces: mixing.announced_draws_are_drawn,
    OwnFixedSeed: mixing.same_rng_same_result,
    KeepsTheFirstDraw: mixing.same_rng_same_result,
    ColumnsDrawnFromTheHeight: mixing.every_row_and_column_is_mixed,
    WrongForThreeChannels: mixing.weights_match_pixels,
    WeightsOfThePartner: mixing.weights_match_pixels,
    PatchLabelsTransposed: training.loss_fits_the_sources,
    PatchLabelsMirrored: training.loss_fits_the_sources,
    LossOfOtherImages: training.loss_fits_the_sources,
    LossOfExchangedShares: training.loss_fits_the_sources,
    LossOfEqualShares: training.loss_fits_the_sources,
    DetachesTheModel: training.all_parameters_get_gradients,
    RoundsItsLabel: mixing.weights_match_pixels,
}


@pytest.mark.parametrize(
    ("fault", "check"), FAULTS.items(), ids=lambda item: getattr(item, "__name__", "")
)
def test_fault_is_caught(fault: Callable[[], Method], check: Callable[[Subject], str]) -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        check(Subject(fault))


@pytest.mark.parametrize("check", METHOD_CHECKS, ids=lambda check: check.__name__)
def test_the_method_without_a_fault_passes(check: Callable[[Subject], str]) -> None:
    """Otherwise the faults might be caught for another reason."""
    check(Subject(Blend))

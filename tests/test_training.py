"""The loop: pairing of methods, continuation, and what it refuses."""

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

from mixbench.contract import Method, Output, Part, Sources, Step, Task, Trained
from mixbench.contract.loading import load_method
from mixbench.declare import Recipe
from mixbench.errors import BadParameter, Diverged
from mixbench.registry.units import find
from mixbench.storage.files import write_bytes
from mixbench.streams import generator
from mixbench.testing import ToyTask
from mixbench.testing.toy import ToySplit
from mixbench.train import checkpoints
from mixbench.train.checkpoints import DiskJournal, Stopped
from mixbench.train.evaluation import batch_size, predict, predict_each
from mixbench.train.loop import train
from mixbench.train.schedule import learning_rate
from mixbench.train.setup import Run, Setup, State, begin, weights

RECIPE = Recipe(model="toy", epochs=3, batch_size=30, lr=0.05, tail=2)  # 3 steps an epoch


class Silent:
    """A journal that notes nothing."""

    def restore(self) -> State | None:
        return None

    def after_step(self, step: int, num_steps: int, state: Callable[[], State]) -> None:
        pass

    def end_epoch(
        self, row: Mapping[str, float], weights: Callable[[], State], names: list[str]
    ) -> None:
        pass


class Memory:
    """A journal in memory that may stop the run at a step."""

    def __init__(self, stop_at: int = -1, state: State | None = None) -> None:
        self.stop_at, self.state = stop_at, state
        self.kept: dict[str, State] = {}
        self.rows: list[Mapping[str, float]] = []

    def restore(self) -> State | None:
        return self.state

    def after_step(self, step: int, num_steps: int, state: Callable[[], State]) -> None:
        assert num_steps == 9
        if step == self.stop_at:
            # As through a file: no tensor is shared with the run that goes on.
            buffer = io.BytesIO()
            torch.save(state(), buffer)
            buffer.seek(0)
            self.state = torch.load(buffer, weights_only=True)
            raise Stopped

    def end_epoch(
        self, row: Mapping[str, float], weights: Callable[[], State], names: list[str]
    ) -> None:
        self.rows.append(row)
        for name in names:
            self.kept[name] = {k: v.clone() for k, v in weights().items()}


def setup(method: Method | None = None, **changes: object) -> Setup:
    method = method or load_method(find("method", "random_patchmix"))()
    made = Setup(method, ToyTask(), "toy", RECIPE, 0, Path(), torch.device("cpu"))
    return replace(made, **changes)  # type: ignore[arg-type]


def final(run: Run) -> State:
    return weights(run.model, run.setup.method)


def assert_equal(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("stop_at", [1, 3, 4, 8])
def test_a_continued_run_is_bit_identical(stop_at: int) -> None:
    whole = train(setup(), Memory())
    first = Memory(stop_at)
    with pytest.raises(Stopped):
        train(setup(), first)

    second = Memory(state=first.state)
    resumed = train(setup(), second)

    assert_equal(final(whole), final(resumed))
    assert whole.curve == resumed.curve
    assert whole.counters.images == resumed.counters.images == 270


class Recorder(Method):
    """Mixes nothing and remembers the batches; with a head that draws more initial weights."""

    version = 1

    def __init__(self, heads: int = 0) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.num_heads = heads

    def bind(self, model: torch.nn.Module, task: Task) -> None:  # noqa: ARG002  # the contract
        self.first = next(model.parameters()).detach().clone()
        self.heads = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(self.num_heads))

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        torch.rand(self.num_heads, generator=step.rng)
        torch.rand(self.num_heads)
        self.seen.append(x.clone())
        return x, Sources.unmixed(x)


def test_all_methods_see_the_same_weights_and_batches() -> None:
    plain, greedy = Recorder(), Recorder(heads=3)

    train(setup(plain), Memory())
    train(setup(greedy), Memory())

    assert torch.equal(plain.first, greedy.first)
    assert torch.equal(torch.stack(plain.seen), torch.stack(greedy.seen))


def test_seeds_differ_in_weights_and_order() -> None:
    zero, one = Recorder(), Recorder()

    train(setup(zero), Memory())
    train(setup(one, seed=1), Memory())

    assert not torch.equal(zero.first, one.first)
    assert not torch.equal(zero.seen[0], one.seen[0])


def test_an_epoch_shows_every_item_at_most_once() -> None:
    recorder = Recorder()

    train(setup(recorder), Memory())

    for epoch in range(3):
        items = torch.cat(recorder.seen[3 * epoch : 3 * epoch + 3]).flatten(1)
        assert len(items.unique(dim=0)) == 90


def test_the_best_and_the_last_epochs_are_kept() -> None:
    memory = Memory()

    run = train(setup(), memory)

    accuracies = [row["validation_accuracy"] for row in memory.rows]
    best = [n for n, value in enumerate(accuracies, 1) if value > max([0.0, *accuracies[: n - 1]])]
    assert set(memory.kept) == {*(f"best-{epoch}" for epoch in best), "epoch-2", "epoch-3"}
    assert run.best == best[-1]
    assert_equal(memory.kept["epoch-3"], final(run))


class Broken(Recorder):
    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        loss = super().loss(output, sources, step)
        return loss * float("nan") if len(self.seen) == 5 else loss


def test_a_loss_that_is_not_finite_is_named_with_its_step() -> None:
    with pytest.raises(Diverged, match=r"The loss is nan at step 5 \(epoch 2\)"):
        train(setup(Broken()), Memory())


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(BadParameter, match="at most the number of training images, 96"):
        train(setup(recipe=replace(RECIPE, batch_size=97)), Memory())


def test_bfloat16_trains() -> None:
    run = train(setup(recipe=replace(RECIPE, precision="bfloat16")), Memory())

    assert all(tensor.isfinite().all() for tensor in final(run).values())
    assert run.curve[-1]["loss"] < run.curve[0]["loss"]


def torchs_rates(make: Callable[[torch.optim.Optimizer], Any], number: int) -> list[float]:
    """Return what a schedule of torch makes of a rate of 0.1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule, rates = make(optimizer), []
    for _ in range(number):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


def test_the_learning_rate_is_torchs_cosine() -> None:
    recipe = Recipe(model="toy", epochs=8)

    rates = [learning_rate(recipe, step, 40) for step in range(40)]

    theirs = torchs_rates(partial(CosineAnnealingLR, T_max=40), 40)
    assert rates == pytest.approx(theirs)


def test_milestones_are_torchs() -> None:
    recipe = Recipe(model="toy", epochs=10, milestones=(2, 5))

    rates = [learning_rate(recipe, 3 * epoch + 2, 30) for epoch in range(10)]

    assert rates == pytest.approx(torchs_rates(partial(MultiStepLR, milestones=[2, 5]), 10))


@pytest.mark.full
@pytest.mark.filterwarnings("default")  # compilers warn of their own affairs
@pytest.mark.parametrize(
    "change", [{"memory_format": "channels_last"}, {"compile": True}], ids=lambda c: next(iter(c))
)
@pytest.mark.parametrize(
    "method", [pytest.param("random_patchmix", marks=pytest.mark.slow), "manifold_mixup"]
)
def test_memory_format_and_compilation_change_no_result(
    change: dict[str, Any], method: str
) -> None:
    def losses(**changes: Any) -> list[float]:
        recipe = replace(RECIPE, epochs=1, **changes)
        run = train(setup(load_method(find("method", method))(), recipe=recipe), Silent())
        return [float(loss) for loss in run.losses]

    assert losses(**change) == pytest.approx(losses(), abs=1e-4)


def journal(folder: Path, notes: list[str]) -> DiskJournal:
    return DiskJournal(folder, checkpoint_every=2, notify=notes.append)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path: Path) -> None:
    whole = train(setup(), Memory())
    with pytest.raises(_Killed):
        train(setup(), _KillingJournal(journal(tmp_path, []), at=7))
    while not (found := list(tmp_path.glob("checkpoint-000000006-*.pt"))):
        sleep(0.01)  # a thread writes it
    (newest,) = found
    newest.write_bytes(newest.read_bytes()[:-100])

    notes: list[str] = []
    resumed = train(setup(), journal(tmp_path, notes))

    assert newest.name in notes[0]
    assert "damaged" in notes[0]
    assert notes[1] == "resumed from the checkpoint of step 4"
    assert_equal(final(whole), final(resumed))


class _Killed(Exception):
    """As if the process had ended."""


class _KillingJournal:
    """A journal on the disk whose process dies at a step."""

    def __init__(self, inner: DiskJournal, at: int) -> None:
        self.inner, self.at = inner, at

    def restore(self) -> State | None:
        return self.inner.restore()

    def after_step(self, step: int, num_steps: int, state: Callable[[], State]) -> None:
        if step == self.at:
            raise _Killed
        self.inner.after_step(step, num_steps, state)

    def end_epoch(
        self, row: Mapping[str, float], weights: Callable[[], State], names: list[str]
    ) -> None:
        self.inner.end_epoch(row, weights, names)


def test_a_trial_ends_within_an_epoch_and_is_resumed(tmp_path: Path) -> None:
    recipe = replace(RECIPE, max_steps=5)
    whole = train(setup(recipe=recipe), Silent())
    with pytest.raises(_Killed):
        train(setup(recipe=recipe), _KillingJournal(journal(tmp_path, []), at=4))

    resumed = train(setup(recipe=recipe), journal(tmp_path, []))

    assert_equal(final(whole), final(resumed))
    assert [row["epoch"] for row in whole.curve] == [1, 2]
    assert whole.curve[-1]["loss"] == pytest.approx(float(whole.losses[:2].mean()))
    assert whole.counters.images == 5 * 30
    assert "train_accuracy" in whole.curve[-1]


def test_the_best_weights_that_a_checkpoint_names_are_kept(tmp_path: Path) -> None:
    """Other hardware may not repeat the epochs after it bit for bit."""
    disk = journal(tmp_path, [])
    for epoch, step in ((1, 2), (2, 4), (3, 6)):
        disk.end_epoch({"loss": 1.0}, lambda: {"w": torch.ones(1)}, [f"best-{epoch}"])
        disk.after_step(step, 99, lambda: {"step": step, "best": epoch, "weights": {}})  # noqa: B023
    disk.end_epoch({"loss": 1.0}, lambda: {"w": torch.ones(1)}, ["best-4"])
    disk.stop = True
    with pytest.raises(Stopped):
        disk.after_step(7, 99, lambda: {"step": 7, "best": 4, "weights": {}})

    kept = sorted(path.stem for path in (tmp_path / "kept").iterdir())

    assert kept == ["best-3", "best-4"]  # of the two checkpoints that are kept


def test_only_two_checkpoints_are_kept(tmp_path: Path) -> None:
    train(setup(), journal(tmp_path, []))

    assert [p.name[:20] for p in sorted(tmp_path.glob("checkpoint-*.pt"))] == [
        "checkpoint-000000006", "checkpoint-000000008",
    ]  # fmt: skip


@pytest.mark.parametrize(("seconds", "found"), [(0, 2), (300, 0)])
def test_without_a_number_of_steps_checkpoints_are_written_by_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, found: int
) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_EVERY_S", seconds)

    train(setup(), DiskJournal(tmp_path, checkpoint_every=None, notify=print))

    assert len(list(tmp_path.glob("checkpoint-*.pt"))) == found


@pytest.mark.parametrize(
    "method", ["none", "mixup", "cutmix", "random_patchmix", "resizemix", "saliencymix"]
)
def test_accumulated_gradients_are_those_of_the_whole_batch(method: str) -> None:
    """Up to the order of sums, where batch norms use fixed statistics."""

    def gradients(accumulate: int) -> tuple[float, list[Tensor]]:
        mixing = load_method(find("method", method))()
        run = begin(setup(mixing, recipe=replace(RECIPE, accumulate=accumulate)))
        run.model.eval()
        images = run.train.read(torch.arange(30), None)
        targets, rng = run.train.targets[:30], generator(0, "mix")
        step = Step(images, targets, rng=rng, task=run.setup.task, model=run.model, split=run.train)
        result = run.gradients(step)
        found = [p.grad for p in run.model.parameters() if p.grad is not None]
        return float(result.loss), found

    (loss, whole), (parts_loss, parts) = gradients(1), gradients(4)

    assert parts_loss == pytest.approx(loss, rel=1e-5)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)


def test_what_mixes_inside_the_model_is_not_divided() -> None:
    mixing = load_method(find("method", "manifold_mixup"))()

    with pytest.raises(BadParameter, match="accumulate must be 1 for ManifoldMixup"):
        begin(setup(mixing, recipe=replace(RECIPE, accumulate=2)))


class AllImages(ToyTask):
    """A task that holds nothing out."""

    holdout = 0.0

    def load(self, part: Part, folder: Path, seed: int) -> ToySplit:
        assert part != "validation"
        return super().load(part, folder, seed)


def test_without_validation_the_last_epochs_are_kept() -> None:
    journal = Memory()
    run = train(setup(task=AllImages()), journal)

    assert [*run.curve[0]] == ["epoch", "loss"]
    assert [*journal.kept] == ["epoch-2", "epoch-3"]
    assert run.best == 0


def test_a_checkpoint_that_cannot_be_written_ends_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        if path.name.startswith("checkpoint"):
            raise OSError(28, "No space left on device")
        write_bytes(path, content)

    monkeypatch.setattr("mixbench.train.checkpoints.write_bytes", full)

    with pytest.raises(OSError, match="No space left"):
        train(setup(), journal(tmp_path, []))


class Counted(ToySplit):
    """A split that counts how often it is read."""

    reads = 0

    def read(self, index: Tensor, rng: torch.Generator | None) -> Tensor:
        self.reads += 1
        return super().read(index, rng)


def test_images_are_read_once_for_all_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyTask, "evaluation_batch", 40)
    task, method = ToyTask(), load_method(find("method", "none"))()
    plain = task.load("test", Path(), 0)
    split = Counted(plain.images, plain.targets)
    trained = []
    for seed in range(3):
        torch.manual_seed(seed)
        trained.append(Trained(task.build("toy"), method))

    together = predict_each(task, trained, split)

    assert split.reads == 3  # batches of 96 images
    for one, found in zip(trained, together, strict=True):
        assert torch.equal(found["outputs"], predict(task, *one, plain)["outputs"])
    assert not torch.equal(together[0]["outputs"], together[1]["outputs"])


def test_batches_of_an_evaluation_fit_the_size_of_the_images() -> None:
    sizes = {}
    for side in (32, 64, 224, 448, 2000):
        task = ToyTask()
        task.image_size = (side, side)
        sizes[side] = batch_size(task)

    assert sizes == {32: 500, 64: 500, 224: 200, 448: 50, 2000: 2}

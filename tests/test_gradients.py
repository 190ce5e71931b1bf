"""A recorded step against the plain one. A recording on a CPU is a tape of operations: like a GPU's
it does them again in the same memory, and holds fast what is no tensor."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mixbench.contract import Backbone, Method, Output, Sources, Step
from mixbench.contract.loading import load_method
from mixbench.declare import Recipe
from mixbench.errors import MixbenchError
from mixbench.registry.units import find, paths
from mixbench.testing.toy import ToyTask, subject_of, toy_step
from mixbench.train.cuda_graphs import GraphBackend
from mixbench.train.distributed import SINGLE_PROCESS as _ALONE
from mixbench.train.gradients import VALIDATION_STEPS, WARMUP_STEPS, EagerGradients, GraphGradients
from mixbench.train.mixing import SharedStep
from tests.support import each

RECIPE = Recipe(model="toy", epochs=1)
Trained = tuple[list[float], list[int], dict[str, Tensor]]


class Tape(TorchDispatchMode):
    """Notes every operation with the memory that it reads and writes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.notes: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.notes.append((func, args, kwargs or {}, found))
        return found

    @torch.no_grad()
    def play(self) -> None:
        for func, args, kwargs, found in self.notes:
            again = tree_leaves(func(*args, **kwargs))
            for old, new in zip(tree_leaves(found), again, strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Tapes:
    """Records on tapes; like a GPU, it cannot record what a host asks of the numbers."""

    def __init__(self) -> None:
        self.number = 0

    @contextmanager
    def check_capturable(self) -> Iterator[Callable[[], None]]:
        with Tape() as tape:
            yield lambda: None
        done = {func.name() for func, *_ in tape.notes}
        if done & {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"}:
            raise RuntimeError("called a synchronizing operation")

    @contextmanager
    def capture(self) -> Iterator[Callable[[], None]]:
        self.number += 1
        with Tape() as tape:
            yield tape.play


def trained(
    method: Method,
    model: Backbone,
    steps: int,
    said: list[str] | None,
    tapes: GraphBackend | None = None,
) -> Trained:
    """Train for some steps, recorded if there is somebody to be told; return losses and state."""
    split = ToyTask().load("train", None, 0)  # type: ignore[arg-type]
    shared = SharedStep(model, method, distributed=_ALONE)
    gradients: Any = EagerGradients(shared, RECIPE)
    if said is not None:
        gradients = GraphGradients(shared, RECIPE, tapes or Tapes(), said.append)
    optimizer = torch.optim.SGD(shared.parameters(), lr=0.05, momentum=0.9)
    losses: list[float] = []
    images: list[int] = []
    for number in range(steps):
        torch.manual_seed(number)
        loss, num_images = gradients(toy_step(split, ToyTask(), model, number))
        losses.append(float(loss))
        images.append(num_images)
        optimizer.step()
    return losses, images, {name: t.clone() for name, t in shared.state_dict().items()}


def assert_alike(recorded: Trained, plain: Trained) -> None:
    assert recorded[1] == plain[1]
    assert recorded[0] == pytest.approx(plain[0], rel=1e-4)
    for key, tensor in plain[2].items():
        torch.testing.assert_close(recorded[2][key], tensor, rtol=1e-3, atol=1e-4, msg=key)


def toy(*, dropout: bool = False) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ToyTask().build("toy")
    if dropout:
        model.classifier = nn.Sequential(nn.Dropout(), model.get_submodule("classifier"))
    return model


@pytest.mark.parametrize("name", each(sorted(paths("method")), "mixup"))
def test_a_recorded_step_trains_as_the_plain_one(name: str) -> None:
    subject = subject_of(find("method", name))
    sites = load_method(find("method", name)).sites
    said: list[str] = []

    recorded, plain = (
        trained(*subject.bound()[:2], steps=16 * len(sites), said=told) for told in (said, None)
    )

    assert_alike(recorded, plain)
    assert not any("not captured" in text for text in said), said
    # The kinds of steps of one come too seldom; the masks of the others learn.
    if name not in {"one_of", "adautomix", "automix", "samix"}:
        assert all(any(f"mixed at {site}," in text for text in said) for site in sites), said


@pytest.mark.full
def test_steps_that_are_not_mixed_are_recorded_as_pairs() -> None:
    method = load_method(find("method", "patchup"))
    said: list[str] = []

    recorded, plain = (
        trained(method(prob=0.5), toy(), steps=60, said=told) for told in (said, None)
    )

    assert_alike(recorded, plain)
    assert any("mixed at block2," in text for text in said), said


@pytest.mark.full
def test_what_is_dropped_at_random_is_dropped_anew() -> None:
    method = load_method(find("method", "manifold_mixup"))
    said: list[str] = []

    recorded, plain = (
        trained(method(), toy(dropout=True), steps=45, said=told) for told in (said, None)
    )

    assert_alike(recorded, plain)
    assert len(said) == 3
    assert not any("not captured" in text for text in said), said


class HostWeight(Method):
    """Weighs its loss by a number of the host, which changes from step to step."""

    version = 1

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        self.weight = float(torch.rand((), generator=step.rng))
        return x, Sources.unmixed(x)

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        return self.weight * super().loss(output, sources, step)


class Asks(HostWeight):
    """Asks for a number of the device."""

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        self.weight = 1 + float(output.out.detach().mean())
        return super().loss(output, sources, step)


@pytest.mark.parametrize(("kind", "why"), [(HostWeight, "gradients differ"), (Asks, "synchroni")])
def test_a_loss_that_depends_on_the_host_is_computed(kind: type[Method], why: str) -> None:
    said: list[str] = []
    tapes = Tapes()

    recorded, plain = (trained(kind(), toy(), 16, told, tapes) for told in (said, None))

    assert len(said) == 1
    assert said[0].startswith("the training step is not captured")
    assert why in said[0]
    assert tapes.number == (kind is HostWeight)  # what is known to fail is not tried
    assert_alike(recorded, plain)


class Broken:
    """Fails where nothing stood against it."""

    def check_capturable(self) -> AbstractContextManager[Callable[[], None]]:
        return Tapes().check_capturable()

    def capture(self) -> AbstractContextManager[Callable[[], None]]:
        raise RuntimeError("capture failed")


def test_a_failed_recording_ends_the_run() -> None:
    with pytest.raises(MixbenchError, match=r"mixed at input, .* \(capture failed\)\. Run"):
        trained(HostWeight(), toy(), 5, [], Broken())


class Thirds(Method):
    """Mixes more items after some steps."""

    version = 1
    sites = ("block1",)
    seen = 0

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:  # noqa: ARG002  # the contract
        self.seen += 1
        number = 2 if self.seen < 2 * (WARMUP_STEPS + VALIDATION_STEPS) + 5 else 3
        index = torch.arange(len(x))[:, None].expand(-1, number)
        return x, Sources(index, torch.full(index.shape, 1 / number))


def test_mixes_of_another_number_of_items_are_one_sentence() -> None:
    with pytest.raises(MixbenchError, match=r"\(got 3 after 2\)\. Run the command again without"):
        trained(Thirds(), toy(), 40, [])

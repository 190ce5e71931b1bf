"""A recorded step against the plain one. A recording on a CPU is a trace: it, too, holds fast what
is no tensor, and does the rest again in the same memory."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from mixbench.contract import Method, Output, Sources, Step
from mixbench.declare import Recipe
from mixbench.ranks import ALONE as _ALONE
from mixbench.registry.units import find, load_method, paths
from mixbench.stages.gradients import Computed, Replayed, Work
from mixbench.stages.mixing import SharedStep
from mixbench.testing.toy import ToyTask, subject_of, toy_step

RECIPE = Recipe(model="toy", epochs=1)


def traced(work: Work, shared: SharedStep) -> Work:
    """Record work and leave everything as it was, as a GPU does."""
    before = [buffer.clone() for buffer in shared.buffers()]
    graph: Any = make_fx(work)()
    for buffer, old in zip(shared.buffers(), before, strict=True):
        buffer.copy_(old)
    return torch.no_grad()(graph)  # type: ignore[no-any-return]


def trained(method: Method, model: torch.nn.Module, steps: int, said: list[str] | None) -> Any:
    """Train for some steps, recorded if there is somebody to be told; return losses and state."""
    split = ToyTask().load("train", None, 0)  # type: ignore[arg-type]
    shared = SharedStep(model, method, ranks=_ALONE)
    gradients: Any = Computed(shared, RECIPE)
    if said is not None:
        gradients = Replayed(shared, RECIPE, lambda work: traced(work, shared), said.append)
    optimizer = torch.optim.SGD(shared.parameters(), lr=0.05, momentum=0.9)
    losses: list[float] = []
    images: list[int] = []
    for number in range(steps):
        loss, num_images = gradients(toy_step(split, ToyTask(), model, number))
        losses.append(float(loss))
        images.append(num_images)
        optimizer.step()
    return losses, images, {name: t.clone() for name, t in shared.state_dict().items()}


@pytest.mark.parametrize("name", sorted(paths("method")))
def test_a_recorded_step_trains_as_the_plain_one(name: str) -> None:
    subject = subject_of(find("method", name))
    said: list[str] = []

    (losses, images, state), (plain_losses, plain_images, plain_state) = (
        trained(*subject.bound()[:2], steps=16, said=told) for told in (said, None)
    )

    assert images == plain_images
    assert losses == pytest.approx(plain_losses, rel=1e-4)
    for key, tensor in plain_state.items():
        torch.testing.assert_close(state[key], tensor, rtol=1e-3, atol=1e-4, msg=key)
    assert not any("not recorded" in text for text in said), said
    assert said or load_method(find("method", name)).sites != ("input",) or name == "one_of"


class HostWeight(Method):
    """Weighs its loss by a number of the host, which changes from step to step."""

    version = 1

    def mix(self, x: Tensor, step: Step) -> tuple[Tensor, Sources]:
        self.weight = float(torch.rand((), generator=step.rng))
        return x, Sources.alone(x)

    def loss(self, output: Output, sources: Sources, step: Step) -> Tensor:
        return self.weight * super().loss(output, sources, step)


def test_a_loss_that_depends_on_the_host_is_computed() -> None:
    said: list[str] = []
    runs = []
    for told in (said, None):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = ToyTask().build("toy")
        runs.append(trained(HostWeight(), model, 16, told))

    assert len(said) == 1
    assert said[0].startswith("the step is not recorded")
    assert runs[0][0] == pytest.approx(runs[1][0], rel=1e-5)

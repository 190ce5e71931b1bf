"""A method with a stage of its own, which starts from another method's trained model."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support import Run

PLUGIN = '''"""Mix the two classes that a trained Random PatchMix model confuses most.

Paper    -
Source   -
Differs  nothing known
"""

import torch

from mixbench.contract import Method, Sources
from mixbench.declare import Count, Need


class Confused(Method):
    version = 1
    needs = {"scorer": Need(method="random_patchmix", share=("grid",))}

    def __init__(self, grid: Count = 2) -> None:
        super().__init__()

    def prepare(self, preparation):
        split = preparation.task.load("validation", preparation.folder, preparation.seed)
        model, method = preparation.trained["scorer"]
        assert not model.training
        assert len(method.heads) == 1
        with torch.no_grad():
            logits = method.predict(model(split.read(torch.arange(len(split)), None)))
        wrong = logits.softmax(1)
        wrong[torch.arange(len(split)), split.targets] = 0
        pair = [int(split.targets[0]), int(wrong.sum(0).argmax())]
        self.register_buffer("pair", torch.tensor(pair))
        preparation.report(1, 1, {})

    def mix(self, x, step):
        if int(torch.randint(2, (), generator=step.rng)):
            return x, Sources.unmixed(x)
        drawn = step.draw(self.pair)
        partner = drawn[torch.arange(len(x)) % 2]
        mixed = 0.5 * step.images[: len(x)] + 0.5 * step.images[partner]
        own = torch.arange(len(x))
        return mixed, Sources(torch.stack([own, partner], 1), torch.full((len(x), 2), 0.5))
'''


@pytest.mark.full
def test_a_prepared_method_shares_and_is_charged_for_what_it_rests_on(
    mixbench: Run, fast: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "confused.py").write_text(PLUGIN)
    store = tmp_path / "store"
    patchmix = ("--set", "random_patchmix.grid=2")
    first = mixbench("run", "-m", "random_patchmix", "-t", "digits", *fast, *patchmix)
    assert first.returncode == 0, first.stderr

    done = mixbench("run", "-m", "./confused.py", "-t", "digits", *fast)

    assert done.returncode == 0, done.stderr + mixbench("logs", "confused").stdout
    assert "1 cell, 4 stages: 1 cached, 3 to run" in done.stderr
    (path,) = (store / "records" / "digits" / "confused").glob("*.json")
    record = json.loads(path.read_text())
    assert [(s["kind"], s["own"], s["state"]) for s in record["stages"]] == [
        ("train", False, "reused"),
        ("prepare", True, "ran"),
        ("train", True, "ran"),
        ("evaluate", True, "ran"),
    ]
    # 1,000 images each pass through the model; drawn ones only inside mixes of them.
    assert record["cost"]["images"] == 2000
    assert record["method"]["source"] == "file"
    kept = {a["role"]: store / a["path"] for a in record["artifacts"]}
    prepared = load_file(kept["buffers"])["pair"]
    assert torch.equal(load_file(kept["weights"])["method.pair"], prepared)
    assert "confused (file)" in done.stdout

"""Exported models, loaded without mixbench."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from mixbench.errors import DataError
from mixbench.storage.store import Store
from mixbench.worker.export import Predictor
from mixbench.worker.job import give_weights, revive
from tests.fake_hub import TOKEN, serving
from tests.support import Run

pytestmark = pytest.mark.full
TIMM = ("-t", "cifar10", "--data", "synthetic", "--protocol", "quick", "--model", "resnet10t")
SMALL = ("--set", "cifar10.epochs=1", "--set", "cifar10.classes=3")


def outputs(store: Store, images: torch.Tensor) -> torch.Tensor:
    """Return the predictions of the only model of a store."""
    stage = next(m.spec.stage for m in store.manifests() if m.spec.stage.kind == "evaluate")
    trained = revive(stage, torch.device("cpu"))
    give_weights(stage, store, trained)
    with torch.no_grad():
        found: torch.Tensor = Predictor(trained.model.eval(), trained.method.eval())(images)
    return found


def test_a_program_of_torch_predicts_the_same(
    mixbench: Run, tmp_path: Path, fast: tuple[str, ...]
) -> None:
    """In a process that does not import mixbench, with the head of a method."""
    patches = ("--set", "random_patchmix.image_loss=false")
    assert mixbench("run", "-m", "random_patchmix", "-t", "digits", *fast, *patches).returncode == 0
    file = tmp_path / "deep/model.pt2"

    done = mixbench("export", "digits/random_patchmix", "--to", str(file))

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{file}\n"
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    torch.save(images, tmp_path / "images.pt")
    code = (
        "import sys, json, torch\n"
        "more = {'mixbench': ''}\n"
        "model = torch.export.load(sys.argv[1], extra_files=more).module()\n"
        "torch.save(model(torch.load(sys.argv[2])), sys.argv[3])\n"
        "assert not any(name.startswith('mixbench') for name in sys.modules)\n"
        "print(more['mixbench'])"
    )
    paths = [str(file), str(tmp_path / "images.pt"), str(tmp_path / "out.pt")]
    loaded = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *paths], text=True, stdout=subprocess.PIPE,
        check=True, cwd=tmp_path,
    )  # fmt: skip
    expected = outputs(Store(tmp_path / "store"), images)
    torch.testing.assert_close(torch.load(tmp_path / "out.pt"), expected)
    facts = json.loads(loaded.stdout)
    assert facts["label_names"] == [str(n) for n in range(10)]
    assert facts["method"] == "random_patchmix"
    assert len(facts["mean"]) == len(facts["std"]) == 1


def test_timm_makes_the_model_of_a_folder(mixbench: Run, tmp_path: Path) -> None:
    assert mixbench("run", "-m", "none", *TIMM, *SMALL).returncode == 0
    folder = tmp_path / "exported"

    done = mixbench("export", "none/resnet10t", "--to", str(folder))

    assert done.returncode == 0, done.stderr
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = model(images)
    torch.testing.assert_close(found, outputs(Store(tmp_path / "store"), images))
    facts: Any = model.pretrained_cfg
    assert len(facts["label_names"]) == 3
    assert facts["mean"] == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.01)


def test_what_cannot_be_exported_is_one_sentence(
    mixbench: Run, tmp_path: Path, fast: tuple[str, ...]
) -> None:
    mixbench("run", "-m", "none,mixup", "-t", "digits", *fast)

    for words, said in (
        (("nowhere", "--to", "x.pt2"), "No finished cell 'nowhere'"),
        (("digits", "--to", "x.pt2"), "2 cells have 'digits' in their names"),
        (("digits/none", "--to", str(tmp_path / "x")), "write a program of torch instead"),
    ):
        done = mixbench("export", *words)
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_model_is_pushed_to_the_hub_and_had_from_it(
    mixbench: Run, mixbench_process: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mixbench("run", "-m", "cutmix", *TIMM, *SMALL).returncode == 0
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    export = ("export", "cifar10", "--to", str(tmp_path / "made"), "--push-to-hub", "me/net")

    with serving(tmp_path / "hub") as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        refused = mixbench_process(*export)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        pushed = mixbench_process(*export)
        again = mixbench_process(
            "run", "-m", "none", *TIMM[:-2], *SMALL, "--model", "hf-hub:me/net", "--max-steps", "1"
        )

    assert refused.returncode == DataError.exit_code
    assert "me/net cannot be pushed to the Hugging Face Hub: " in refused.stderr
    assert pushed.returncode == 0, pushed.stderr
    there, made = (tmp_path / place for place in ("hub/me/net", "made"))
    names = {"config.json", "model.safetensors", "README.md"}
    assert {path.name for path in there.iterdir()} >= names
    assert all((there / name).read_bytes() == (made / name).read_bytes() for name in names)
    assert "library_name: timm" in (there / "README.md").read_text()
    assert again.returncode == 0, again.stderr
    assert "weights=hf-hub:me/net@" in again.stdout

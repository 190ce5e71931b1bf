"""The protocol that anyone can run: every task on generated images, neither easy nor hopeless."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixbench.registry.units import find, paths

# Points above what needs no look at the data: generated captions share more form than content.
ABOVE = {"coco_captions": 5}
GENERATED = [name for name in paths("task") if find("task", name).declared.synthetic.protocols]


@pytest.mark.slow
@pytest.mark.parametrize("task", GENERATED)
def test_plain_training_gets_between_40_and_90_percent(task: str, tmp_path: Path) -> None:
    protocol = find("task", task).declared.synthetic.protocols[0]
    command = ["run", "-m", "none,random_patchmix", "-t", task, "--protocol", protocol]

    done = subprocess.run(
        [sys.executable, "-m", "mixbench", *command],
        env=os.environ | {"MIXBENCH_STORE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    (record,) = tmp_path.glob(f"records/{task}/none/*.json")
    content = json.loads(record.read_text())
    (score,) = (m for m in content["metrics"] if m["primary"] and m["at"] == "last")
    assert 40 <= score["value"] <= 90
    trivial_baselines = [
        m["value"] for m in content["metrics"] if m["trivial_baseline"] and m["at"] == "last"
    ]
    assert all(
        score["value"] > trivial_baseline + ABOVE.get(task, 15)
        for trivial_baseline in trivial_baselines
    )
    assert content["data"]["origin"] == "synthetic"
    assert content["cost"]["wall_s_total"] < 600

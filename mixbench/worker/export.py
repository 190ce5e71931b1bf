"""Write a trained model in a form that timm or torch loads without mixbench."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save
from torch import Tensor, nn

from mixbench.contract import Backbone, Method, Normalization
from mixbench.errors import UsageError
from mixbench.storage.files import write_bytes, write_json
from mixbench.storage.spec import Stage
from mixbench.storage.store import Store
from mixbench.vision.models.timm_models import TimmNet
from mixbench.worker.job import give_weights, make_task, revive

SOURCE = "exported by mixbench"


class Predictor(nn.Module):
    """The model and its method at test time, as one network.

    Parameters
    ----------
    model
        Trained model.
    method
        Method that it was trained with.
    """

    def __init__(self, model: Backbone, method: Method) -> None:
        super().__init__()
        self.model, self.method = model, method

    def forward(self, images: Tensor) -> Tensor:
        """Return the predictions for normalised images."""
        return self.method.predict(self.model(images))


def export(stage: Stage, store: Store, names: list[str], to: Path) -> list[Path]:
    """Write the model that an evaluation has evaluated; return the written files.

    Parameters
    ----------
    stage
        The evaluation.
    store
        Store with the model.
    names
        Names of the classes.
    to
        A path that ends with .pt2, for a program that `torch.export.load` reads; or a folder, from
        which ``timm.create_model("local-dir:FOLDER")`` makes the model.

    Raises
    ------
    UsageError
        If timm cannot make the model, or the task does not state how images are normalised.
    """
    model, method = revive(stage, torch.device("cpu"))
    give_weights(stage, store, (model, method))
    task = make_task(stage)
    predictor = Predictor(model.eval(), method.eval()).to(memory_format=torch.contiguous_format)
    shape = (getattr(task, "channels", 3), *task.test_size)
    normalization: Normalization | None = getattr(task, "normalization", None)
    if normalization is None:
        raise UsageError(
            f"The task {stage.identity.task.name} does not state how its images are normalised, "
            "which the user of an exported model has to know: export a classifier."
        )
    facts = {
        "architecture": stage.run.model,
        "method": stage.run.method.name,
        "task": stage.identity.task.name,
        "seed": stage.run.seed,
        "input_size": shape,
        "mean": normalization.mean,
        "std": normalization.std,
        "label_names": names,
    }
    if to.suffix == ".pt2":
        _write_program(predictor, shape, facts, to)
        return [to]
    return _write_for_timm(predictor, shape, facts, to)


def _write_program(
    predictor: Predictor, shape: tuple[int, ...], facts: dict[str, Any], to: Path
) -> None:
    """Write a program for batches of any size, with the facts as its extra file ``mixbench``."""
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        predictor, (torch.zeros(2, *shape),), dynamic_shapes={"images": {0: batch}}
    )
    to.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, to, extra_files={"mixbench": json.dumps(facts)})


def _card(facts: Mapping[str, Any]) -> str:
    """Return the model card, with the metadata by which the Hub finds a model of timm."""
    mean, std = (", ".join(f"{value:g}" for value in facts[name]) for name in ("mean", "std"))
    return (
        "---\nlibrary_name: timm\npipeline_tag: image-classification\ntags:\n- timm\n- mixbench\n"
        f"---\n# {facts['architecture']} trained with {facts['method']} on {facts['task']}\n\n"
        f"Trained and {SOURCE}, seed {facts['seed']}. It has {len(facts['label_names'])} classes, "
        f"whose names are in config.json. Images are normalised with mean {mean} and standard "
        f"deviation {std}.\n"
    )


def _write_for_timm(
    predictor: Predictor, shape: tuple[int, ...], facts: dict[str, Any], to: Path
) -> list[Path]:
    """Write a folder in the form of timm's models on the Hub, and check that timm reads it."""
    model = predictor.model
    plain = type(predictor.method).predict is Method.predict
    if not (isinstance(model, TimmNet) and plain and model.normalization is None):
        raise UsageError(
            f"timm cannot make {facts['architecture']} with what {facts['method']} adds to it: "
            "write a program of torch instead, as in --to model.pt2."
        )
    config = {
        "architecture": facts["architecture"],
        "num_classes": len(facts["label_names"]),
        "num_features": model.feature_dim,
        "pretrained_cfg": {
            **{name: facts[name] for name in ("input_size", "mean", "std", "label_names")},
            "num_classes": len(facts["label_names"]),
            "fixed_input_size": False,
            "description": f"{facts['task']}, {facts['method']}, {SOURCE}",
        },
    }
    to.mkdir(parents=True, exist_ok=True)
    written = [to / "config.json", to / "model.safetensors", to / "README.md"]
    write_json(written[0], config)
    weights = {name: tensor.contiguous() for name, tensor in model.net.state_dict().items()}
    write_bytes(written[1], save(weights))
    write_bytes(written[2], _card(facts).encode())
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        made = timm.create_model(f"local-dir:{to}", pretrained=True).eval()
        if not torch.allclose(made(images), predictor(images), atol=1e-5):
            for path in written:  # nobody must take it for the trained model
                path.unlink()
            raise UsageError(
                f"timm makes another network of {facts['architecture']} than mixbench does for "
                "images of this size: write a program of torch instead, as in --to model.pt2."
            )
    return written

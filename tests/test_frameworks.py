"""Methods in the loops of Lightning and Hugging Face, as the page about loops shows them."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import mixbench

PAGE = Path(__file__).parents[1] / "docs/own-loop.md"
CLASSES, SIDE = 4, 64
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # their own


class Squares(Dataset[Any]):
    """Images with a bright square, whose corner is their class."""

    def __init__(self, *, named: bool = False) -> None:
        rng = torch.Generator().manual_seed(0)
        self.targets = [i % CLASSES for i in range(48)]
        self.images = 0.2 * torch.randn(48, 3, SIDE, SIDE, generator=rng)
        half = SIDE // 2
        for image, target in zip(self.images, self.targets, strict=True):
            row, column = divmod(target, 2)
            image[:, row * half :, column * half :][:, :half, :half] += 1
        self._named = named

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, item: int) -> Any:
        image, target = self.images[item], self.targets[item]
        return {"pixel_values": image, "labels": target} if self._named else (image, target)


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = [
        nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()) for a, b in ((3, 8), (8, 16), (16, 16))
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, CLASSES))


def shown(word: str) -> dict[str, Any]:
    """Return what the page defines in the code with a word."""
    codes = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    defined: dict[str, Any] = {}
    exec(next(code for code in codes if word in code), defined)
    return defined


def accuracy(model: nn.Module, data: Squares) -> float:
    with torch.no_grad():
        out: Any = model.eval()(data.images)
    logits: Tensor = getattr(out, "logits", out)
    return float((logits.argmax(1) == torch.tensor(data.targets)).float().mean())


def test_a_lightning_module_trains_as_a_plain_loop(tmp_path: Path) -> None:
    lightning, data = pytest.importorskip("lightning"), Squares()
    loader = DataLoader(data, batch_size=8)
    plain = net()
    mixed = mixbench.MixedLoss("random_patchmix", plain, dataset=data, grid=2)
    optimizer = torch.optim.SGD([*mixed.parameters(), *plain.parameters()], lr=0.05)
    for _ in range(20):
        for images, labels in loader:
            optimizer.zero_grad()
            mixed(images, labels).backward()
            optimizer.step()

    module = shown("lightning")["Mixed"](net(), data)
    trainer = lightning.Trainer(
        max_epochs=20, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, loader)

    pairs = [*zip(plain.parameters(), module.model.parameters(), strict=True)]
    pairs += zip(mixed.parameters(), module.mixed.parameters(), strict=True)
    assert all(one.equal(other) for one, other in pairs)
    first = next(net().parameters())
    assert not first.equal(next(module.model.parameters()))


def test_a_trainer_of_hugging_face_trains(tmp_path: Path) -> None:
    transformers, data = pytest.importorskip("transformers"), Squares(named=True)
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        num_labels=CLASSES, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1],
        layer_type="basic",
    )  # fmt: skip
    model = transformers.ResNetForImageClassification(config)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=25, per_device_train_batch_size=8, use_cpu=True,
        learning_rate=0.01, report_to=[], save_strategy="no", remove_unused_columns=False,
        disable_tqdm=True,
    )  # fmt: skip
    trainer = shown("transformers")["MixedTrainer"](
        model=model, args=arguments, train_dataset=data, eval_dataset=data
    )

    trainer.train()
    found = trainer.evaluate()

    assert accuracy(model, data) > 0.8
    assert found["eval_loss"] < 1

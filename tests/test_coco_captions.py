"""Captions of COCO: what its files say, what the decoder learns and tells, what is refused."""

import contextlib
import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.datasets import CocoCaptions

from mixbench.contract import Sources, Task, mixed_loss
from mixbench.contract.loading import load_task
from mixbench.errors import DataError
from mixbench.registry.units import find
from mixbench.train.checkpoints import DiskPredictionCache
from mixbench.train.features import Encoding
from mixbench.vision.captions.captioner import Captioner
from mixbench.vision.captions.tokenizer import END, START, UNKNOWN, sentences, words_of
from tests.support import Run

SMALL = {"side": 32, "vocabulary": 40, "words_seen": 1, "width": 8, "length": 6}
OFFICIAL = "annotations/captions_val2014.json"


def make_task(variant: str = "karpathy", **values: Any) -> Any:
    return load_task(find("task", "coco_captions"))(**{"variant": variant, **SMALL, **values})


def written(variant: str, folder: Path) -> Path:
    task: Task = make_task(variant)
    folder.mkdir(exist_ok=True)
    task.synthesize(folder, replace(task.synthetic, train=3, test=2))
    return folder


def captioner(**values: Any) -> Captioner:
    torch.manual_seed(0)
    model = make_task(**values).build("resnet8")
    assert isinstance(model, Captioner)
    return model


def told(task: Any, folder: Path, targets: torch.Tensor) -> list[list[str]]:
    names = task.class_names(folder)
    said = [[row for row in sentences(image) if row] for image in targets]
    return [[" ".join(names[n] for n in row) for row in rows] for rows in said]


def test_official_images_and_captions_are_torchvisions(tmp_path: Path) -> None:
    folder = written("official", tmp_path)
    task = make_task("official")
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = CocoCaptions(str(folder / "val2014"), str(folder / OFFICIAL))

    test = task.load("test", folder, 0)

    expected = [[" ".join(words_of(caption)) for caption in captions] for _, captions in theirs]
    assert told(task, folder, test.targets) == expected
    assert test.path(3).name == theirs.coco.loadImgs(theirs.ids[3])[0]["file_name"]
    assert len(expected) == 16


def test_karpathys_parts_are_those_of_his_file(tmp_path: Path) -> None:
    folder = written("karpathy", tmp_path)
    task = make_task()
    content = json.loads((folder / "dataset_coco.json").read_text())["images"]

    found = {}
    for part in ("train", "validation", "test"):
        split = task.load(part, folder, 0)
        found[part] = {split.path(i).name for i in range(len(split))}

    by_split = {
        name: {image["filename"] for image in content if image["split"] == name}
        for name in ("train", "restval", "val", "test")
    }
    assert found["train"] == by_split["train"] | by_split["restval"]
    assert found["validation"] == by_split["val"]
    assert found["test"] == by_split["test"]
    assert len(task.load("train", folder, 0)) == 5 * len(found["train"])  # an item for a caption


def test_the_official_held_out_images_do_not_train(tmp_path: Path) -> None:
    folder, task = written("official", tmp_path), make_task("official", holdout=0.25)

    train, held = (task.load(part, folder, 0) for part in ("train", "validation"))

    names = [{split.path(i).name for i in range(len(split))} for split in (train, held)]
    assert not names[0] & names[1]
    assert [len(part) for part in names] == [18, 6]


def change(path: Path, how: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    how(content)
    path.write_text(json.dumps(content))


def test_empty_captions_are_none_and_images_without_captions_are_left_out(tmp_path: Path) -> None:
    folder, task = written("official", tmp_path), make_task("official")

    def silence(content: Any) -> None:
        content["annotations"][1]["caption"] = " ... "
        for annotation in content["annotations"][5:10]:
            annotation["caption"] = ""

    change(folder / OFFICIAL, silence)

    test = task.load("test", folder, 0)

    said = told(task, folder, test.targets)
    assert len(said) == 15
    assert [len(captions) for captions in said[:2]] == [4, 5]


def test_long_captions_are_cut_in_training_and_whole_in_references(tmp_path: Path) -> None:
    folder = written("official", tmp_path)
    long = " ".join(["word"] * 500) + " zebra"
    for tree in ("train2014", "val2014"):
        path = folder / f"annotations/captions_{tree}.json"
        change(path, lambda content: content["annotations"][0].update(caption=long))
    task = make_task("official", holdout=0.05)

    train, test = (task.load(part, folder, 0) for part in ("train", "test"))

    assert train.targets.shape[1] == SMALL["length"] + 1
    assert told(task, folder, test.targets)[0][0] == long


WRONG: dict[str, tuple[str, str, Callable[[Any], object], str]] = {
    "an image twice": (
        "official", OFFICIAL, lambda c: c["images"].append(c["images"][2]),
        r"captions_val2014.json must have each image id once \(got 17 2 times\)",
    ),
    "of no image": (
        "official", OFFICIAL, lambda c: c["annotations"][4].update(image_id=99999),
        r"annotation 4 refers to image 99999, which is not in the file",
    ),
    "no text": (
        "official", OFFICIAL, lambda c: c["annotations"][4].update(caption=7),
        r"the caption of annotation 4 must be a string \(got 7\)",
    ),
    "no images": (
        "official", OFFICIAL, lambda c: c.pop("images"), "must hold captions in COCO format",
    ),
    "an image twice in his split": (
        "karpathy", "dataset_coco.json", lambda c: c["images"].append(c["images"][0]),
        r"dataset_coco.json must have each cocoid once \(got 0 2 times\)",
    ),
    "another part": (
        "karpathy", "dataset_coco.json", lambda c: c["images"][3].update(split="dev"),
        r"split of image 3 must be one of train, restval, val, test \(got 'dev'\)",
    ),
    "no sentences": (
        "karpathy", "dataset_coco.json", lambda c: c["images"][-1].pop("sentences"),
        "must hold Karpathy's split of COCO .*sentences",
    ),
    "nothing to test": (
        "karpathy", "dataset_coco.json",
        lambda c: c.update(images=[i for i in c["images"] if i["split"] != "test"]),
        "must have at least one image with a caption in its test split",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_annotations_are_named(tmp_path: Path, what: str) -> None:
    variant, name, harm, said = WRONG[what]
    folder = written(variant, tmp_path)
    change(folder / name, harm)

    with pytest.raises(DataError, match=said):
        make_task(variant).load("test", folder, 0)


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_what_is_no_json_is_named(tmp_path: Path, text: str) -> None:
    folder = written("official", tmp_path)
    (folder / OFFICIAL).write_text(text, encoding="latin-1")

    with pytest.raises(DataError, match=r"captions_val2014.json must hold a.* JSON"):
        make_task("official").load("test", folder, 0)


def test_the_loss_is_the_mean_over_words_and_the_end() -> None:
    model = captioner(dropout=0.0).eval()
    out = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    captions = torch.tensor([[5, 4, END, END], [7, END, END, END]])

    losses = model.loss(out, captions).detach()

    for row in range(2):
        words = sentences(captions[row : row + 1])[0] + (END,)
        state = model._step(out[row : row + 1], None)[1]
        total, word = 0.0, START
        for following in words:
            hidden, state = model.decoder(model.words(torch.tensor([[word]])), state)
            logits = model.classifier(hidden[:, 0]).detach()
            total -= float(logits.log_softmax(1)[0, following])
            word = following
        assert float(losses[row]) == pytest.approx(total / len(words), rel=1e-5)


@torch.no_grad()
def likelihood(model: Captioner, out: torch.Tensor, words: tuple[int, ...]) -> float:
    """Return a caption's log probability, one word after the other."""
    state = model._step(out, None)[1]
    total, word = 0.0, START
    for following in words:
        log_p, state = model._step(model.words(torch.tensor([word])), state)
        total += float(log_p[0, following])
        word = following
    return total


def test_a_wide_beam_finds_the_likeliest_of_all_captions() -> None:
    model = captioner(vocabulary=7, length=3, beam=64).eval()
    torch.nn.init.normal_(model.classifier.weight, std=3.0)
    out = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
    every = [
        words for length in range(4)
        for words in product(range(UNKNOWN + 1, 7), repeat=length)
    ]  # fmt: skip
    ended = {words: (*words, END) if len(words) < 3 else words for words in every}

    model.beam = 4 * 4 * 5
    found = model.tell(out)

    for row in range(5):
        best = max(every, key=lambda words: likelihood(model, out[row : row + 1], ended[words]))
        assert sentences(found[row : row + 1])[0] == best


def test_a_beam_of_one_takes_the_likeliest_word_each_time() -> None:
    model = captioner(beam=1).eval()
    torch.nn.init.normal_(model.classifier.weight, std=3.0)
    out = torch.randn(6, 8, generator=torch.Generator().manual_seed(3))

    found = sentences(model.tell(out))

    for row, caption in enumerate(found):
        state = model._step(out[row : row + 1], None)[1]
        words: list[int] = []
        word = START
        while len(words) < SMALL["length"]:
            log_p, state = model._step(model.words(torch.tensor([word])), state)
            word = int(log_p.argmax())
            if word == END:
                break
            words.append(word)
        assert caption == tuple(words)
    assert len(set(found)) > 1


def test_nobody_says_what_is_no_word() -> None:
    model = captioner().eval()
    with torch.no_grad():
        model.classifier.bias[[START, UNKNOWN]] = 50.0

    found = model.tell(torch.randn(4, 8))

    assert not {START, UNKNOWN} & {word for caption in sentences(found) for word in caption}


def test_a_frozen_encoder_changes_in_nothing() -> None:
    model = captioner().train()
    before = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}

    out = model(torch.randn(6, 3, 32, 32)).out
    model.loss(out, torch.randint(3, 9, (6, 7))).sum().backward()

    after = model.encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    assert model.image[0].weight.grad is not None


def test_an_encoder_that_learns_does() -> None:
    model = captioner(finetune_encoder=True).train()

    model.loss(model(torch.randn(6, 3, 32, 32)).out, torch.randint(3, 9, (6, 7))).sum().backward()

    grads = {name for name, p in model.encoder.named_parameters() if p.grad is not None}
    assert "layer1.0.conv1.weight" in grads


def test_features_are_computed_once_and_are_those_of_the_images(tmp_path: Path) -> None:
    folder, task = written("karpathy", tmp_path), make_task()
    model, split = captioner().eval(), task.load("train", folder, 0)

    once = task.precompute_frozen(model, split, Encoding())

    index = torch.tensor([0, 7, 33])
    with torch.no_grad():
        seen, cached = (model(part.read(index, None)).out for part in (split, once))
    torch.testing.assert_close(cached, seen, rtol=1e-5, atol=1e-6)
    assert once.read(index, None).dim() == 2
    assert torch.equal(once.targets, split.targets)
    for changes in ({"mix_in": "finetune"}, {"finetune_encoder": True}):
        other = make_task(**changes)
        assert other.precompute_frozen(captioner(**changes), split, Encoding()) is split


def test_stopped_features_continue_and_are_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixbench.train.features.CHUNK", 8)
    folder, task = written("karpathy", tmp_path / "data"), make_task()
    split = task.load("train", folder, 0).images()
    seen: list[int] = []

    def encode(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return images.mean((2, 3))

    def stop(done: int, _of: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    def kept(name: str) -> DiskPredictionCache:
        return DiskPredictionCache(tmp_path / name)

    expected = Encoding()(encode, split)
    before = len(seen)
    with pytest.raises(KeyboardInterrupt):
        Encoding(kept, report=stop)(encode, split)
    stopped = len(seen)
    found = Encoding(kept)(encode, split)

    assert torch.equal(found, expected)
    assert stopped - before == 2
    assert len(seen) - stopped == before - 2  # what was encoded is not encoded again
    assert len(expected) == len(split)


def test_losses_of_mixed_images_are_those_of_their_captions() -> None:
    model = captioner(dropout=0.0).eval()
    out, captions = torch.randn(3, 8), torch.randint(3, 9, (3, 7))
    sources = Sources.pair(torch.tensor([1, 2, 0]), 0.3)

    found = mixed_loss(model.loss, out, sources, captions)

    own, partner = model.loss(out, captions), model.loss(out, captions[[1, 2, 0]])
    torch.testing.assert_close(found, (0.3 * own + 0.7 * partner).mean())


@pytest.mark.full
@pytest.mark.parametrize("method", ["random_patchmix", "guided_patchmix"])
def test_patches_have_no_captions_and_it_is_said_before_anything_runs(
    mixbench: Run, method: str
) -> None:
    options = ["-m", method, "-t", "coco_captions", "--protocol", "quick", "--init", "random"]

    refused = mixbench("run", *options, "--set", "coco_captions.mix_in=finetune")
    planned = mixbench("plan", "-m", method, "-t", "coco_captions", "--protocol", "quick")

    assert refused.returncode == 2
    assert "has no classes, which this method" in refused.stderr
    assert planned.returncode == 0, planned.stderr  # pre-training carries the method


@pytest.mark.full
def test_a_run_mixes_in_fine_tuning_and_writes_a_record(mixbench: Run, tmp_path: Path) -> None:
    few = {**SMALL, "epochs": 1, "batch_size": 20, "mix_in": "finetune"}
    options = ["-m", "cutmix", "-t", "coco_captions", "--protocol", "quick", "--init", "random"]
    options += [part for n, v in few.items() for part in ("--set", f"coco_captions.{n}={v}")]
    folder = written("karpathy", tmp_path / "data")

    done = mixbench("run", *options, "--data", str(folder))
    drawn = mixbench("report", "--figures")

    assert done.returncode == 0, done.stderr
    assert "captions.png" in drawn.stdout, drawn.stderr
    (path,) = (tmp_path / "store").glob("records/coco_captions/cutmix/*.json")
    metrics = {m["name"]: m for m in json.loads(path.read_text())["metrics"] if m["at"] == "last"}
    assert set(metrics) == {metric.name for metric in make_task().metrics}
    assert all(math.isfinite(metric["value"]) for metric in metrics.values())
    assert metrics["bleu1"]["n"] == 16

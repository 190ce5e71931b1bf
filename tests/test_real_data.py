"""Published values of real data; skipped where the data is not at hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mixbench.vision.captions.scores import caption_scores
from mixbench.vision.captions.tokenizer import words_of
from mixbench.vision.detection.boxes import stacked
from mixbench.vision.detection.coco_ap import coco_ap

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data in {DATA}")


def read(name: str) -> Any:
    return json.loads((DATA / name).read_text(encoding="utf-8"))


@needs_data
def test_words_of_difficult_captions_are_stanfords() -> None:
    """961 captions with the words of Stanford's tokenizer; the rules must give 99 % of them."""
    facts = read("ptb_facts.json")

    wrong = [fact["caption"] for fact in facts if words_of(fact["caption"]) != fact["tokens"]]

    assert len(facts) == 961
    assert len(wrong) <= 0.01 * len(facts), wrong


@needs_data
def test_scores_of_coco_captions_are_the_published_ones() -> None:
    """The example of coco-caption: 245 images with their references."""
    content = read("captions/fakecap_245.json")
    images, published = content["images"], content["scores"]

    found = caption_scores(
        [words_of(image["hypothesis"]) for image in images],
        [[words_of(text) for text in image["references"]] for image in images],
    )

    assert found.bleu == pytest.approx([published[f"bleu{n}"] for n in range(1, 5)], abs=1e-6)
    assert found.rouge_l == pytest.approx(published["rouge_l"], abs=1e-6)
    assert found.cider_d == pytest.approx(published["cider"], abs=1e-6)


@needs_data
def test_scores_of_nlg_eval_are_the_published_ones() -> None:
    """The example of Maluuba/nlg-eval."""
    hypotheses, *references = (
        [
            words_of(line)
            for line in (DATA / f"captions/nlg_eval/{name}.txt").read_text().splitlines()
        ]
        for name in ("hyp", "ref1", "ref2")
    )

    found = caption_scores(hypotheses, list(zip(*references, strict=True)))

    assert found.bleu == pytest.approx([0.55, 0.428174, 0.284043, 0.201143], abs=1e-6)
    assert found.rouge_l == pytest.approx(0.522104, abs=1e-6)
    assert found.cider_d == pytest.approx(1.242192, abs=1e-6)


def row(box: list[float], category: int, last: float) -> tuple[float, ...]:
    """Return a box in COCO's form as a row of a target or prediction, in VOC's form."""
    left, top, width, height = box
    return left + 1, top + 1, left + width, top + height, category, last


@needs_data
def test_average_precision_of_coco_is_the_published_one() -> None:
    """100 images of COCO with made-up detections: cocodataset/cocoapi@8c9bcc3."""
    truth = read("coco/instances_val2014_100.json")
    boxes = read("coco/instances_val2014_fakebbox100_results.json")
    images = {image["id"]: n for n, image in enumerate(truth["images"])}
    categories = {category["id"]: n for n, category in enumerate(truth["categories"])}
    target: list[list[tuple[float, ...]]] = [[(1, 1, 1, 1, -1, 0)] for _ in images]
    found: list[list[tuple[float, ...]]] = [[(1, 1, 1, 1, -1, 0)] for _ in images]
    for one in truth["annotations"]:
        line = row(one["bbox"], categories[one["category_id"]], one["iscrowd"])
        target[images[one["image_id"]]].append(line)
    for one in boxes:
        line = row(one["bbox"], categories[one["category_id"]], one["score"])
        found[images[one["image_id"]]].append(line)

    predicted, true = (
        stacked([torch.tensor(rows, dtype=torch.float64) for rows in both])
        for both in (found, target)
    )
    ap = coco_ap(predicted, true, len(categories))

    assert (ap.ap, ap.ap50, ap.ap75) == pytest.approx((0.505, 0.697, 0.573), abs=5e-4)

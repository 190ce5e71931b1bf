"""Scores of captions are those of pycocoevalcap, on the same words, to the ninth digit."""

import contextlib
import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from mixbench.vision.captions.scores import (
    bleu,
    blind_bleu,
    caption_scores,
    cider_d,
    longest_common,
)

WORDS = st.sampled_from(["a", "b", "c", "d", "e"])
SENTENCE = st.lists(WORDS, min_size=1, max_size=9)
IMAGE = st.tuples(st.lists(WORDS, max_size=9), st.lists(SENTENCE, min_size=1, max_size=4))
Corpus = list[tuple[list[str], list[list[str]]]]


def theirs(corpus: Corpus) -> tuple[list[float], float, float]:
    told = {i: [" ".join(hypothesis)] for i, (hypothesis, _) in enumerate(corpus)}
    said = {i: [" ".join(ref) for ref in refs] for i, (_, refs) in enumerate(corpus)}
    with contextlib.redirect_stdout(io.StringIO()):
        scorers: list[Any] = [Bleu(4), Rouge(), Cider()]
        bleu, rouge, cider = (scorer.compute_score(said, told)[0] for scorer in scorers)
    return [float(value) for value in bleu], float(rouge), float(cider)


def check(corpus: Corpus) -> None:
    ours = caption_scores([h for h, _ in corpus], [refs for _, refs in corpus])
    bleu, rouge, cider = theirs(corpus)
    assert ours.bleu == tuple(bleu)  # to the last bit
    assert ours.rouge_l == pytest.approx(rouge, abs=1e-9)
    assert ours.cider_d == pytest.approx(cider, abs=1e-9)


@settings(max_examples=300, deadline=None)
@given(st.lists(IMAGE, min_size=1, max_size=6))
def test_random_corpora(corpus: Corpus) -> None:
    check(corpus)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(SENTENCE, min_size=1, max_size=4), min_size=1, max_size=6))
def test_the_best_blind_caption_is_the_best_of_all_that_are_told_of_every_image(
    references: list[list[list[str]]],
) -> None:
    every = [ref for refs in references for ref in refs]

    best = max(bleu([ref] * len(references), references)[-1] for ref in every)

    assert blind_bleu(references) == best


CASES: dict[str, Corpus] = {
    "one image": [(["a", "cat"], [["a", "cat"], ["the", "cat"]])],
    "nothing told": [([], [["a"]]), (["a"], [["a"]])],
    "shorter than an order": [(["a", "b"], [["a", "b", "c"]]), (["d"], [["e", "d"]])],
    "two lengths equally close": [(["a", "b"], [["a"], ["a", "b", "c"]]), (["c"], [["c"]])],
    "a word again and again": [(["a"] * 9, [["a", "b"]]), (["b"], [["b", "a", "b"]])],
    "nothing in common": [(["x", "y"], [["a", "b"]]), (["z"], [["c"]])],
    "the same reference twice": [(["a", "b", "c"], [["a", "b", "c"]] * 2), (["d"], [["e"]])],
}


@pytest.mark.parametrize("name", CASES)
def test_degenerate_corpora(name: str) -> None:
    check(CASES[name])


def test_numbers_score_as_words() -> None:
    corpus = CASES["two lengths equally close"]
    number = {word: n for n, word in enumerate("abc")}

    of_words = caption_scores([h for h, _ in corpus], [refs for _, refs in corpus])
    of_numbers = caption_scores(
        [[number[w] for w in h] for h, _ in corpus],
        [[[number[w] for w in ref] for ref in refs] for _, refs in corpus],
    )

    assert of_words == of_numbers


def test_perfect_captions_get_the_most() -> None:
    said = [[["a", "red", "cat", "sits"]], [["two", "dogs", "run", "far"]]]

    scores = caption_scores([refs[0] for refs in said], said)

    assert scores.bleu == pytest.approx((1, 1, 1, 1))
    assert scores.rouge_l == pytest.approx(1)
    assert scores.cider_d == pytest.approx(10)


def test_one_hypothesis_for_each_image() -> None:
    with pytest.raises(ValueError, match=r"one hypothesis for each image \(got 2 for 1\)"):
        caption_scores([["a"], ["b"]], [[["a"]]])
    with pytest.raises(ValueError, match="must have a reference"):
        caption_scores([["a"]], [[]])


def test_common_words_need_not_touch() -> None:
    assert longest_common("abcd", "xaxcxd") == 3
    assert longest_common("", "abc") == longest_common("abc", "") == 0


def test_in_a_corpus_of_one_image_no_word_weighs() -> None:
    assert cider_d([["a"]], [[["a"]]]) == 0

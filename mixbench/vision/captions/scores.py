"""BLEU, ROUGE-L and CIDEr-D as in coco-caption, reimplemented from their papers.

A sentence is a sequence of words, and a word is any hashable value. Every image has one hypothesis
and at least one reference. Constants and corner cases are those of salaniz/pycocoevalcap@ad63453:
bleu/bleu_scorer.py, rouge/rouge.py, cider/cider_scorer.py.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

Sentence = Sequence[Hashable]
Ngrams = Counter[tuple[Hashable, ...]]

ORDERS = 4
TINY, SMALL = 1e-15, 1e-9  # avoid 0 / 0, as in the reference
BETA = 1.2  # of ROUGE-L: weight of recall relative to precision
SIGMA = 6.0  # of CIDEr-D: standard deviation of the length penalty, in words


class CaptionScores(NamedTuple):
    """Caption scores of a corpus.

    Attributes
    ----------
    bleu
        BLEU-1 to BLEU-4, in [0, 1].
    rouge_l
        ROUGE-L, averaged over the images, in [0, 1].
    cider_d
        CIDEr-D, in [0, 10].
    """

    bleu: tuple[float, ...]
    rouge_l: float
    cider_d: float


def caption_scores(
    hypotheses: Sequence[Sentence], references: Sequence[Sequence[Sentence]]
) -> CaptionScores:
    """Score one hypothesis for every image against the image's references.

    Raises
    ------
    ValueError
        If there is not exactly one hypothesis for every image, or an image has no reference.
    """
    if len(hypotheses) != len(references) or not hypotheses:
        raise ValueError(
            f"Captions must have one hypothesis for each image (got {len(hypotheses)} for "
            f"{len(references)})."
        )
    if not all(references):
        raise ValueError("Every image must have a reference (got an image with none).")
    rouge = [rouge_l(h, rs) for h, rs in zip(hypotheses, references, strict=True)]
    return CaptionScores(
        bleu(hypotheses, references), sum(rouge) / len(rouge), cider_d(hypotheses, references)
    )


def ngrams(sentence: Sentence, order: int) -> Ngrams:
    """Return the count of every n-gram of the given order in a sentence."""
    words = tuple(sentence)
    return Counter(words[i : i + order] for i in range(len(words) - order + 1))


def bleu(
    hypotheses: Sequence[Sentence], references: Sequence[Sequence[Sentence]]
) -> tuple[float, ...]:
    """Return BLEU-1 to BLEU-4 over a whole corpus (Papineni et al., ACL 2002, §2).

    The reference length of an image is the length closest to that of the hypothesis; of two
    equally close lengths, the shorter is used.
    """
    matched, possible = [0] * ORDERS, [0] * ORDERS
    length = closest = 0
    for hypothesis, refs in zip(hypotheses, references, strict=True):
        length += len(hypothesis)
        closest += min((abs(len(ref) - len(hypothesis)), len(ref)) for ref in refs)[1]
        for order in range(1, ORDERS + 1):
            most: Ngrams = Counter()
            for ref in refs:
                most |= ngrams(ref, order)
            matched[order - 1] += (ngrams(hypothesis, order) & most).total()
            possible[order - 1] += max(len(hypothesis) - order + 1, 0)
    return _bleu(matched, possible, length, closest)


def _bleu(
    matched: Sequence[int], possible: Sequence[int], length: int, closest: int
) -> tuple[float, ...]:
    """Return BLEU from n-gram counts of each order and the hypothesis and reference lengths."""
    ratio = (length + TINY) / (closest + SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    scores, product = [], 1.0
    for order in range(ORDERS):
        product *= (matched[order] + TINY) / (possible[order] + SMALL)
        scores.append(product ** (1 / (order + 1)) * penalty)
    return tuple(scores)


def blind_bleu(references: Sequence[Sequence[Sentence]]) -> float:
    """Return the largest BLEU-4 that a single reference reaches as the caption of all images.

    This baseline does not use the images. The k-th occurrence of an n-gram in the caption matches
    in every image that has a reference with at least k occurrences of it.
    """
    number = len(references)
    images: Counter[tuple[tuple[Hashable, ...], int]] = Counter()
    for refs in references:
        most: Ngrams = Counter()
        for ref in refs:
            for order in range(1, ORDERS + 1):
                most |= ngrams(ref, order)
        images.update((gram, k) for gram, times in most.items() for k in range(1, times + 1))
    lengths = [sorted({len(ref) for ref in refs}) for refs in references]
    closest: dict[int, int] = {}
    best = 0.0
    for told in {tuple(ref) for refs in references for ref in refs}:
        size = len(told)
        if size not in closest:
            closest[size] = sum(min((abs(n - size), n) for n in some)[1] for some in lengths)
        matched = [
            sum(images[gram, k] for gram, n in grams.items() for k in range(1, n + 1))
            for grams in (ngrams(told, order) for order in range(1, ORDERS + 1))
        ]
        possible = [number * max(size - order, 0) for order in range(ORDERS)]
        best = max(best, _bleu(matched, possible, number * size, closest[size])[-1])
    return best


def rouge_l(hypothesis: Sentence, references: Sequence[Sentence]) -> float:
    """Return ROUGE-L of one image (Lin, 2004, §3.1), with the best precision and best recall.

    The two may come from different references. An empty sentence scores 0.
    """
    precision = recall = 0.0
    for ref in references:
        common = longest_common(hypothesis, ref)
        precision = max(precision, common / max(len(hypothesis), 1))
        recall = max(recall, common / max(len(ref), 1))
    if not (precision and recall):
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def longest_common(one: Sentence, other: Sentence) -> int:
    """Return the length of the longest common subsequence."""
    before = [0] * (len(other) + 1)
    for word in one:
        row = [0]
        for place, another in enumerate(other):
            same = before[place] + 1
            row.append(same if word == another else max(before[place + 1], row[-1]))
        before = row
    return before[-1]


class _Weighted(NamedTuple):
    """Weights of a sentence's n-grams and the norms of the weight vectors, for each order."""

    weights: list[dict[tuple[Hashable, ...], float]]
    norms: list[float]
    pairs: int  # number of bigrams, which CIDEr-D calls the length


def cider_d(hypotheses: Sequence[Sentence], references: Sequence[Sequence[Sentence]]) -> float:
    """Return CIDEr-D (Vedantam et al., CVPR 2015, §5) over a corpus, in [0, 10].

    The weight of an n-gram is its count in the sentence times the logarithm of the number of images
    over the number of images whose references contain it (TF-IDF). So in a corpus of one image all
    weights are 0, and so is the score.
    """
    images: Ngrams = Counter()
    for refs in references:
        seen = {gram for ref in refs for n in range(1, ORDERS + 1) for gram in ngrams(ref, n)}
        images.update(seen)
    log_number = math.log(len(references))

    def weighted(sentence: Sentence) -> _Weighted:
        weights = [
            {g: n * (log_number - math.log(max(images[g], 1))) for g, n in grams.items()}
            for grams in (ngrams(sentence, order) for order in range(1, ORDERS + 1))
        ]
        norms = [math.sqrt(sum(weight**2 for weight in vector.values())) for vector in weights]
        return _Weighted(weights, norms, max(len(sentence) - 1, 0))

    total = 0.0
    for hypothesis, refs in zip(hypotheses, references, strict=True):
        own = weighted(hypothesis)
        total += sum(_similarity(own, weighted(ref)) for ref in refs) / len(refs)
    return 10 * total / len(hypotheses)


def _similarity(own: _Weighted, ref: _Weighted) -> float:
    """Return the clipped cosine similarity averaged over the orders, with a length penalty."""
    cosines = 0.0
    for mine, theirs, length, other in zip(
        own.weights, ref.weights, own.norms, ref.norms, strict=True
    ):
        common = sum(min(w, theirs[g]) * theirs[g] for g, w in mine.items() if g in theirs)
        cosines += common / (length * other) if length and other else common
    apart = own.pairs - ref.pairs
    return math.exp(-(apart**2) / (2 * SIGMA**2)) * cosines / ORDERS

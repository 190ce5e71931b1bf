"""From captions to words and their numbers.

Words are those of coco-caption (salaniz/pycocoevalcap@ad63453, tokenizer/ptbtokenizer.py), which
runs Stanford's tokeniser for the Penn Treebank in Java. Here NLTK splits by the Treebank's rules,
and what Stanford does otherwise is done before and after it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from nltk.tokenize.treebank import TreebankWordTokenizer
from torch import Tensor

END, START, UNKNOWN = range(3)  # numbers that are no words; what follows an end is no word either
SPECIAL = 3

_TREEBANK = TreebankWordTokenizer()
_DROPPED = frozenset({"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"})
_ONLY_MARKS = re.compile(r"\.+|-+|'+")
# Lower-cased as Stanford writes them, so that coco-caption, which drops -LRB-, keeps them.
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_PLAIN = str.maketrans({
    "\n": " ", "\u2018": "'", "\u2019": "'", "`": "'", "\u00b4": "'", "\u201c": '"',
    "\u201d": '"', "\u2026": " ... ", "\u2014": " -- ", "\u2013": " -- ",
})  # fmt: skip
_ENDS_WITH_DOTS = re.compile(r"(.*?[^.])(\.+)([\"')\]]*)")
_OPENING = re.compile(r"^[\"'(\[]+")
_INITIALS = re.compile(r"(?:[a-z]\.)*[a-z]")
_ABBREVIATIONS = frozenset({
    "mr", "mrs", "ms", "dr", "st", "ave", "rd", "blvd", "mt", "ft", "jr", "sr", "vs", "etc", "no",
    "inc", "co", "corp", "ltd", "dept", "univ", "prof", "gen", "col", "lt", "sgt", "capt", "rev",
    "hon", "gov", "sen", "rep", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept",
    "oct", "nov", "dec", "bros",
})  # fmt: skip
_KEPT_DOT = "\x00"  # stands behind a full stop that belongs to its word


def words_of(caption: str) -> list[str]:
    """Return a caption's words in lower case, without marks.

    An empty caption, or one of marks alone, has none; letters of any script and emoji are words.
    """
    plain = caption.lower().translate(_PLAIN).replace(_KEPT_DOT, "")
    text = " ".join(map(_without_full_stop, plain.split()))
    found = []
    for token in _TREEBANK.tokenize(text):
        word = _BRACKETS.get(token, token).replace(_KEPT_DOT, "")
        if word not in _DROPPED and not _ONLY_MARKS.fullmatch(word):
            found += word.split()
    return found


def _without_full_stop(word: str) -> str:
    """Return a word without the dots that end a sentence, and with those of an abbreviation."""
    match = _ENDS_WITH_DOTS.fullmatch(word)
    if match is None:
        return word
    stem, dots, closing = match.groups()
    core = _OPENING.sub("", stem)
    several = "." in core and _INITIALS.fullmatch(core)
    if dots == "." and (core in _ABBREVIATIONS or several):
        return stem + dots + _KEPT_DOT + closing
    return f"{stem} {closing}"


class Vocabulary:
    """Words with their numbers: the most frequent ones of some captions, most frequent first.

    Parameters
    ----------
    captions
        The words of each.
    size
        How many numbers there are at the most, those that are no words included.
    least
        How often a word must be there.
    """

    def __init__(self, captions: Iterable[Sequence[str]], size: int, least: int) -> None:
        counts = Counter(word for caption in captions for word in caption)
        self._size = size
        known = sorted((-n, word) for word, n in counts.items() if n >= least)
        self.names = ["<end>", "<start>", "<unknown>", *(w for _, w in known[: size - SPECIAL])]
        self._numbers = {word: n for n, word in enumerate(self.names) if n >= SPECIAL}

    def __len__(self) -> int:
        return len(self.names)

    def number(self, captions: Sequence[Sequence[str]], length: int) -> Tensor:
        """Return captions as numbers, (N, length + 1) int32, cut where they are longer.

        Words that are not known have the number `UNKNOWN`; from the end on it is `END`.
        """
        rows = torch.full((len(captions), length + 1), END, dtype=torch.int32)
        for row, words in zip(rows, captions, strict=True):
            found = [self._numbers.get(word, UNKNOWN) for word in words[:length]]
            row[: len(found)] = torch.tensor(found, dtype=torch.int32)
        return rows

    def number_whole(self, images: Sequence[Sequence[Sequence[str]]]) -> tuple[Tensor, list[str]]:
        """Return all captions of every image as numbers, (N, R, L) int32, none cut, and all names.

        Words that are not known get numbers of their own, so that equal numbers are equal words:
        scores of numbers are scores of words. They come after all of the vocabulary's, of which a
        decoder may tell those that are no word's.
        """
        unused = [f"<unused {n}>" for n in range(len(self.names), self._size)]
        numbers, names = dict(self._numbers), [*self.names, *unused]
        for word in (word for image in images for words in image for word in words):
            if word not in numbers:
                numbers[word] = len(names)
                names.append(word)
        length = max((len(words) for image in images for words in image), default=0) + 1
        rows = torch.full((len(images), max(map(len, images)), length), END, dtype=torch.int32)
        for place, image in enumerate(images):
            for row, words in zip(rows[place], image, strict=False):
                row[: len(words)] = torch.tensor([numbers[w] for w in words], dtype=torch.int32)
        return rows, names


def sentences(rows: Tensor) -> list[tuple[int, ...]]:
    """Return rows of numbers up to their ends, without them."""
    return [tuple(row[: row.index(END)] if END in row else row) for row in rows.tolist()]

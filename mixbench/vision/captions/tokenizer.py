"""Split captions into words, and map words to indices.

The words are those of coco-caption (salaniz/pycocoevalcap@ad63453, tokenizer/ptbtokenizer.py),
which runs Stanford's Penn Treebank tokenizer in Java. Here NLTK's Treebank tokenizer splits the
text. Steps before and after it account for the differences from Stanford's tokenizer.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from nltk.tokenize.treebank import TreebankWordTokenizer
from torch import Tensor

END, START, UNKNOWN = range(3)  # special tokens; everything after an end token is padding
SPECIAL = 3

_TREEBANK = TreebankWordTokenizer()
_DROPPED = frozenset({"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"})
_ONLY_MARKS = re.compile(r"\.+|-+|'+")
# coco-caption drops -LRB- and the like only in upper case, so it keeps these brackets.
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
_KEPT_DOT = "\x00"  # follows a full stop that belongs to its word


def words_of(caption: str) -> list[str]:
    """Return a caption's words in lower case, without punctuation marks.

    A caption that is empty or has only punctuation marks has no words. Letters of any script and
    emoji count as words.
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
    """Remove the dots that end a sentence from a word, but keep the dots of an abbreviation."""
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
    """The most frequent words of some captions, with an index for each.

    The special tokens have the first indices. Words follow by decreasing frequency.

    Parameters
    ----------
    captions
        Captions that are already split into words.
    size
        Maximum number of indices, including the special tokens.
    least
        Minimum number of occurrences of a word.
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
        """Return captions as word indices, (N, length + 1) int32, truncated to `length` words.

        Unknown words have the index `UNKNOWN`. Rows are padded with `END`.
        """
        rows = torch.full((len(captions), length + 1), END, dtype=torch.int32)
        for row, words in zip(rows, captions, strict=True):
            found = [self._numbers.get(word, UNKNOWN) for word in words[:length]]
            row[: len(found)] = torch.tensor(found, dtype=torch.int32)
        return rows

    def number_whole(self, images: Sequence[Sequence[Sequence[str]]]) -> tuple[Tensor, list[str]]:
        """Return all captions as untruncated word indices, (N, R, L) int32, and all words.

        Each unknown word gets an index that no other word has. So two indices are equal exactly
        if their words are equal, and scores of indices are scores of words. These indices start at
        the maximum size of the vocabulary, because a decoder can predict every index below it,
        even one without a word.
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
    """Return the word indices of each row before its end token."""
    return [tuple(row[: row.index(END)] if END in row else row) for row in rows.tolist()]

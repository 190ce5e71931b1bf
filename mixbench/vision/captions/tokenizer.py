"""Split captions into words, and map words to indices.

The words are those of coco-caption (salaniz/pycocoevalcap@ad63453, tokenizer/ptbtokenizer.py),
which runs the Penn Treebank tokenizer of Stanford CoreNLP 3.4.1 in Java and removes some
punctuation marks. The rules below give the words of a caption that stands alone, without Java; the
abbreviations were found by running the tokenizer. `stanford.ptb_words` runs the tokenizer itself.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from mixbench.vision.captions.stanford import ptb_words

END, START, UNKNOWN = range(3)  # special tokens; everything after an end token is padding
SPECIAL = 3

# A letter is any character that is not a digit, a symbol, or unknown to the tokenizer. Unknown
# characters separate words and are not words, and so do all beyond U+FFFF, such as most emoji.
_SYMBOLS = (
    r"!-/:-@\[-`{-~\xa1-\xa9\xab\xac\xae-\xb4\xb6-\xb9\xbb-\xbf\xd7\xf7\u0589\u058a\u05be\u060c"
    r"\u061b\u061f\u06d4\u0964\u0965\u2010-\u2027\u2030-\u205e\u2070-\u20a0\u20a4\u20ac"
    r"\u2100-\u2bff\u3001-\u3012\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
    r"\uffe0-\uffe6"
)
_UNKNOWN = (
    r"\x00-\x20\x7f-\xa0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u20a1-\u20a3\u20a5-\u20ab"
    r"\u20ad-\u20ff\u3000\u3013-\u303f\ud800-\uf8ff\ufe00-\ufe0f\ufeff\ufff0-\uffff"
    r"\U00010000-\U0010ffff"
)
_ANY = rf"[^{_SYMBOLS}{_UNKNOWN}]"  # letter or digit
_LETTER = rf"[^0-9{_SYMBOLS}{_UNKNOWN}]"
_WORD = rf"{_LETTER}{_ANY}*+(?:[.!?]{_LETTER}{_ANY}*+)*+"
_APOS = r"['\u2019]"
_INNER = r"['`\u2018\u2019\u201b]"  # apostrophe between letters
_CLITIC = rf"{_APOS}(?i:[msd]|re|ve|ll)"
_INITIALS = r"[A-Za-z](?:\.[A-Za-z])+"
_PART = rf"(?:[DdOoLl]{_INNER}{_ANY})?{_ANY}++"  # between hyphens, such as o'clock
_PATH = r"[^\s\"<>|()]{2,}(?<![-.,!?{}])"  # of an address
_SIDE = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"  # of a slash
_ABBREVIATIONS = """
    adj adm adv al ala alex apr ariz assn assoc asst atty attys aug ave bancorp bhd bldg blvd brig
    bros calif capt cf cie cmdr co col colo comdr conn corp cos cpl ct dak dec dept det dr drs ed.d
    elec ens esq est etc ext feb fla fri ft ga gen gov govs hon inc ind insp intl invt jan jos jr
    jul jun kan kans ky lieut lt ltd maj mar md messrs mfg mich minn mlle mme mo mon mont mr mrs ms
    msgr mt mtg natl neb nev nov oct okla penn pfc ph ph.d plc ppte ppty pres prof profs pte ptes
    pty ptys pvt rd rep reps rev rt sen sens sep sept seq sfc sgt spc sq sr st ste supt supts sys
    tel tenn thu thurs treas tue tues univ va vs vt wed wis wisc wm wyo
"""
_ABBREVIATED = "|".join(sorted(map(re.escape, _ABBREVIATIONS.split()), reverse=True))
_CAPITALIZED = r"(?=[A-Z])(?i:ark|az|del|ill|la|mass|miss|ore|pa|tex|wash)"  # else a plain word

# The rule with the longest match applies, and the first of several that match equally much. What
# its groups match are words. Reading goes on after the last group, so the rest of the pattern is
# only context. A rule without groups skips all that it matches.
_RULES = [
    re.compile(rule, re.DOTALL)
    for rule in (
        r"\s+",
        # Contractions
        rf"(?i:(can)not|(gon|wan)na|(got)ta|(lem|gim)me|({_APOS}t)(?:is|was))",
        rf"({_WORD}){_CLITIC}",
        rf"([A-Za-z\xad]*[A-MO-Za-mo-z]\xad*)[Nn]{_INNER}[Tt]",
        # Words, with an apostrophe or without
        rf"({_WORD})",
        rf"({_APOS}[Nn]{_APOS}?|[LlDdJj]{_APOS}|{_APOS}(?i:em|till?|[2-9]0s|cause))",
        rf"((?i:dunkin|somethin|ol){_APOS}|[A-HJ-XZn]{_INNER}{_LETTER}{{2,}})",
        rf"({_LETTER}+[aeiouyAEIOUY]{_INNER}[aeiouA-Z]{_LETTER}*)",
        r"((?i:cont'd\.?|nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l|cap'n|c'est))",
        rf"([Yy]{_APOS}){_LETTER}",
        r"((?i:pro|anti)-|[Cc]\+\+|[CcFf]#)",
        # Tags, addresses, and names on the web
        r"(</?[A-Za-z][A-Za-z0-9:.-]*/?>)",
        rf"((?:(?i:https?):/|(?:[a-z]+\.){{1,9}}(?:com|net|org|edu))/{_PATH})",
        r"([A-Za-z0-9][^\s\"<>|(){}]{0,99}@(?!\.)[^\s\"<>|(){}]+(?<!\.))",
        rf"(@[A-Za-z_][A-Za-z0-9_]*|#{_LETTER}+)",
        # Ends of contractions
        rf"({_CLITIC})[^A-Za-z]",
        rf"([Nn]{_INNER}[Tt])",
        # Numbers
        r"([-+]?(?:\d*+(?:[.:,\xad]\d+)+|\d+))",
        r"((?:\d{1,4}[- \xa0])?\d{1,4}[/\u2044]\d{1,4})",
        rf"({_SIDE}(?:\\?/{_SIDE}){{1,2}})",
        r"([A-Z]*\$)",
        r"(\(\d{2,3}\)[ \xa0]?\d{3,4}[- \xa0]?\d{3,5})",
        rf"({_APOS}\d\d)\s",
        # Abbreviations
        r"((?i:ca|figs?|prop|nos?|arts?|pp|op)\.)\s?\d",
        rf"((?:(?i:{_ABBREVIATED})|{_CAPITALIZED}|{_INITIALS}|[A-Za-z])\.)",
        rf"({_WORD}\.)[,;:\u3001]",
        # Smileys
        r"([<>]?[:;=][-o*']?[()DPdpO\\{@|[\]])[^A-Za-z0-9]",
        r"([-^x=~<>']_[-^x=~<>']|\([-^x=~<>'][_.]?[-^x=~<>']\))",
        # Compounds
        rf"([A-Za-z0-9][A-Za-z0-9.,\xad]{{0,99}}+(?:-(?:{_INITIALS}\.|[A-Za-z0-9\xad]+))+)",
        rf"({_PART}(?:[-_\u2010\u2011]{_PART})*+)",
        r"([A-Z]+(?:[+&][A-Z]+)+)",
        # Marks: quotes, dashes, dots, and a single ! or ? are not words
        r"'()[A-Za-z]\S",
        rf"({_CLITIC})",
        r"''|['`\u2018\u2019\u201b-\u201d\xab\xbb\u2039\u203a\",:;\u2013-\u2015\u2026]",
        r"(-{5,})|-+",
        r"\.{3,5}|(?:\. ){2,4}\.|\.",
        r"([?!]{2,})|[?!]",
        r"(@+|#+|_+|\*+|\\\*|&lt;|&gt;|<<|>>)",
        rf"([{_SYMBOLS}])|.",
    )
]
# A shortcut for most words, which gives the same as the rules.
_PLAIN = re.compile(r"\s*+(?!(?i:cannot|gonna|wanna|gotta|lemme|gimme)\s)([A-Za-z]+)(?=\s)")
_ENTITIES = {"&apos;": "'", "&quot;": '"', "&amp;": "&", "&nbsp;": " "}
_CLITICS = ("'s", "'m", "'d", "'re", "'ve", "'ll", "n't")
# coco-caption drops -LRB- and the like only in upper case, so it keeps these brackets.
_SPELLED = {clitic.replace("'", "\u2019"): clitic for clitic in _CLITICS} | {
    "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", "&lt;": "<", "&gt;": ">",
    "¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3",
    "¢": "cents", "£": "#", "€": "$", "¤": "$", "₠": "$",
}  # fmt: skip


def words_of(caption: str) -> list[str]:
    """Return a caption's words in lower case, without punctuation marks.

    A caption that is empty or has only punctuation marks has no words. Some marks are words:
    brackets, and repeated exclamation or question marks.
    """
    text = caption + "\n"
    for entity, character in _ENTITIES.items():
        text = text.replace(entity, character)
    found: list[str] = []
    at = 0
    while at < len(text):
        best = _PLAIN.match(text, at)
        if best is None:
            matches = (rule.match(text, at) for rule in _RULES)
            best = max((match for match in matches if match), key=re.Match.end)
        at = best.end(best.lastindex or 0)
        for token in filter(None, best.groups()):
            word = _SPELLED.get(token.lower(), token.lower()).replace("\xad", "")
            found += word.replace("(", "-lrb-").replace(")", "-rrb-").split()
    return found


def rule_words(captions: Sequence[str]) -> list[list[str]]:
    """Return the words of each caption by the rules of this module."""
    return [words_of(caption) for caption in captions]


TOKENIZERS: Mapping[str, Callable[[Sequence[str]], list[list[str]]]] = {
    "rule": rule_words,
    "ptb": ptb_words,
}


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

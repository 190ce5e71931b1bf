"""Words of captions are those of Stanford's tokeniser; numbers of words are words."""

import shutil
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixbench.contract.loading import load_task
from mixbench.errors import UsageError
from mixbench.registry.units import find
from mixbench.vision.captions.stanford import ptb_words
from mixbench.vision.captions.tokenizer import (
    END,
    UNKNOWN,
    Vocabulary,
    rule_words,
    sentences,
    words_of,
)

# What Stanford's tokeniser and coco-caption's list of marks make of these, as measured with Java.
FACTS = {
    "A man can't ride.": "a man ca n't ride",
    "They cannot go": "they can not go",
    "He is gonna jump!": "he is gon na jump",
    "The man's hat": "the man 's hat",
    "It costs $5": "it costs $ 5",
    "50% off": "50 % off",
    "Watching the T.V.": "watching the t.v.",
    "two fire hoses..": "two fire hoses",
    "on Main st.": "on main st.",
    "next to the letter K.": "next to the letter k.",
    "Wow!! Really?!": "wow !! really ?!",
    "it's o'clock, don't": "it 's o'clock do n't",
    "the U.S. and Mr. Smith, Jr.": "the u.s. and mr. smith jr.",
    "1/2 of a 3-4 year-old at 10:30 a.m.": "1/2 of a 3-4 year-old at 10:30 a.m.",
    "mom&dad &amp; (555) 123-4567": "mom & dad & -lrb-555-rrb- 123-4567",
    "A dog — running": "a dog running",
    "black/white cat": "black/white cat",
    "a man (old) sits": "a man -lrb- old -rrb- sits",
    "“Stop” sign, red; big: yes?": "stop sign red big yes",
    "A half-eaten cake": "a half-eaten cake",
    "wait... what": "wait what",
}


@pytest.mark.parametrize("caption", FACTS)
def test_words_are_stanfords(caption: str) -> None:
    assert " ".join(words_of(caption)) == FACTS[caption]


@pytest.mark.parametrize("caption", ["", "   ", "\n", "...", ".", "!", "-- ,;:", "🍕"])
def test_what_has_no_words_has_none(caption: str) -> None:
    assert words_of(caption) == []


def test_letters_of_any_script_are_words_and_emoji_are_not() -> None:
    assert words_of("Ein Mädchen isst 🍕 auf der Straße.") == [
        "ein", "mädchen", "isst", "auf", "der", "straße",
    ]  # fmt: skip
    assert words_of("一只猫 坐着") == ["一只猫", "坐着"]


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=60))
def test_every_text_has_words_without_spaces(caption: str) -> None:
    for word in words_of(caption):
        assert word
        assert not any(character.isspace() for character in word)


@pytest.mark.parametrize("unit", ["a", "a.", "a-", "'", "((", "1,", "a@", "<a", "http://a/", "!?"])
def test_long_captions_take_no_longer_than_their_length(unit: str) -> None:
    assert words_of(unit * (5000 // len(unit))) is not None


@pytest.mark.full
@pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")
def test_the_rules_give_the_words_of_stanfords_tokenizer() -> None:
    captions = [text for caption in FACTS for text in ("a cat sits", caption, "a dog runs")]

    assert rule_words(captions) == ptb_words(captions)


def test_stanfords_tokenizer_is_refused_without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    make: Any = load_task(find("task", "coco_captions"))

    with pytest.raises(UsageError, match=r"tokenizer=ptb .* needs Java.*or use tokenizer=rule"):
        make(tokenizer="ptb")


def test_the_most_frequent_words_are_known() -> None:
    said = [["a", "red", "cat"], ["a", "cat"], ["a", "dog"], ["a", "red", "dog"]]

    words = Vocabulary(said, size=6, least=2)

    assert words.names == ["<end>", "<start>", "<unknown>", "a", "cat", "dog"]
    assert words.number([["a", "red", "dog"]], 4).tolist() == [[3, UNKNOWN, 5, END, END]]


def test_long_captions_are_cut_with_an_end() -> None:
    words = Vocabulary([["a", "b"]], size=9, least=1)

    assert words.number([["a", "b", "a", "b"]], 3).tolist() == [[3, 4, 3, END]]


def test_numbers_of_whole_captions_are_words_and_change_no_vocabulary() -> None:
    words = Vocabulary([["a", "cat"]], size=9, least=1)
    said = [[["a", "lynx"], ["a", "lynx", "and", "a", "cat"]], [["an", "ocelot"]]]

    rows, names = words.number_whole(said)

    assert len(words) == 5
    back = [[[names[n] for n in row] for row in sentences(image) if row] for image in rows]
    assert back == said
    assert int(words.number([["lynx"]], 1)[0, 0]) == UNKNOWN
    assert names.index("lynx") == 9  # no number that a decoder of nine could tell


def test_a_sentence_goes_up_to_its_end() -> None:
    rows = torch.tensor([[5, 4, END, 7], [END, 3, 3, 3], [3, 4, 5, 6]])

    assert sentences(rows) == [(5, 4), (), (3, 4, 5, 6)]

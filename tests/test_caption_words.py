"""Words of captions are those of Stanford's tokeniser; numbers of words are words."""

import pytest
import torch

from mixbench.vision.captions.tokenizer import END, UNKNOWN, Vocabulary, sentences, words_of

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
    "next to the letter K.": "next to the letter k",
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


@pytest.mark.parametrize("caption", ["", "   ", "\n", "...", ".", "!?", "-- ,;:"])
def test_what_has_no_words_has_none(caption: str) -> None:
    assert words_of(caption) == []


def test_any_letters_and_emoji_are_words() -> None:
    assert words_of("Ein Mädchen isst 🍕 auf der Straße.") == [
        "ein", "mädchen", "isst", "🍕", "auf", "der", "straße",
    ]  # fmt: skip
    assert words_of("一只猫 坐着") == ["一只猫", "坐着"]


def test_no_caption_smuggles_marks_in() -> None:
    assert words_of("st\x00. and e.g.\x00 so") == ["st.", "and", "e.g.", "so"]


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

"""Multiple choice: options as asked, one letter as answered, and benchmarks' lenient readings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.rewards.text import normalize

INSTRUCTION = "The answer is the letter of the right option."

_LETTER = re.compile(r"\(?(?P<letter>[A-Z])\)?[.:]?(?:\s+(?P<text>\S.*))?", re.DOTALL)
_LETTERS = re.compile(r"[A-Z](?:\s*(?:,|/|;|&|and|or)\s*[A-Z])+|[A-Z]{2,8}")
_PREFIX = re.compile(r"\(?([A-Za-z])[.):]\)?\s+")


@dataclass(frozen=True, slots=True)
class Choice:
    """Gold of a multiple-choice question: the options' texts without letters, the right letter."""

    options: tuple[str, ...]
    letter: str

    def __post_init__(self) -> None:
        if self.letter not in self.letters:
            raise ValueError(f"answer {self.letter!r} names none of {len(self.options)} options")

    @property
    def letters(self) -> str:
        return letters_of(self.options)

    @property
    def text(self) -> str:
        return self.options[self.letters.index(self.letter)]


def letters_of(options: Sequence[str]) -> str:
    """The letters of the options, `ABCD` for four; none or more than 26 raise ValueError."""
    if not 1 <= len(options) <= len(ascii_uppercase):
        raise ValueError(f"{len(options)} options: from 1 to {len(ascii_uppercase)} have letters")
    return ascii_uppercase[: len(options)]


def format_options(options: Sequence[str]) -> str:
    """Write the options as lines `(A) text`."""
    lettered = zip(letters_of(options), options, strict=True)
    return "\n".join(f"({letter}) {text}" for letter, text in lettered)


def strip_letters(options: Sequence[str]) -> tuple[str, ...]:
    """Take `A. `, `(A) ` or `A) ` off options that all carry their own letter, in order.

    Options of which one does not are returned as they are.
    """
    if not options:
        return ()
    matches = [match for option in options if (match := _PREFIX.match(option))]
    if "".join(match[1].upper() for match in matches) != letters_of(options):
        return tuple(options)
    return tuple(match.string[match.end() :] for match in matches)


def choice_of_text(options: Sequence[str], answer: str) -> Choice:
    """The choice whose option is the given text; none or several such options raise ValueError."""
    lettered = zip(letters_of(options), options, strict=True)
    found = [letter for letter, option in lettered if option == answer]
    if len(found) != 1:
        raise ValueError(f"{len(found)} of the options {list(options)!r:.200} are {answer!r:.80}")
    return Choice(tuple(options), found[0])


def parse_letter(text: str, options: Sequence[str], with_text: bool = False) -> Parsed[str]:
    """Read one upper-case letter of the options: `B`, `(B)`, `B)`, `B.` or `B:`.

    `with_text` also takes the letter followed by its own option, `B. cat`; a letter followed by
    anything else is malformed, and more than one letter is `multiple`.
    """
    text = text.strip()
    match = _LETTER.fullmatch(text)
    if match is None or match["letter"] not in letters_of(options):
        if _LETTERS.fullmatch(text[:64]):
            return Parsed("multiple", None, f"several letters: '{text:.40}'")
        return malformed(f"not one of the letters {letters_of(options)}: '{text:.40}'")
    letter = match["letter"]
    if match["text"] is None:
        return ok(letter)
    option = options[letters_of(options).index(letter)]
    if with_text and normalize(match["text"]) == normalize(option):
        return ok(letter)
    if _LETTERS.fullmatch(text[:64]):
        return Parsed("multiple", None, f"several letters: '{text:.40}'")
    return malformed(f"more than a letter: '{text:.40}'")


def parse_option_text(text: str, options: Sequence[str]) -> Parsed[str]:
    """Read the letter of the one option that the text equals, case and spacing aside."""
    wanted = normalize(text)
    found = [
        letter
        for letter, option in zip(letters_of(options), options, strict=True)
        if wanted and normalize(option) == wanted
    ]
    if len(found) == 1:
        return ok(found[0])
    if found:
        return Parsed("multiple", None, f"{len(found)} options read '{text:.40}'")
    return malformed(f"none of the options: '{text:.40}'")


def mmmu_letter(text: str, options: Sequence[str]) -> str | None:
    """The letter that MMMU's official parser reads, or None where that one guesses at random.

    In order: `(B)` anywhere; ` B ` between spaces; in more than five words, an option's text. Of
    several candidates the one that occurs last counts.
    """
    for char in ",.!?;:'":
        text = text.strip(char)
    spaced = f" {text} "
    letters = letters_of(options)
    lowered = spaced.lower()
    contents = {letter: option.lower() for letter, option in zip(letters, options, strict=True)}
    readings = [
        (spaced, {letter: f"({letter})" for letter in letters}),
        (spaced, {letter: f" {letter} " for letter in letters}),
        (lowered, contents if len(spaced.split()) > 5 else {}),
    ]
    for haystack, needles in readings:
        last = {letter: haystack.rfind(needle) for letter, needle in needles.items()}
        found = {letter: at for letter, at in last.items() if at >= 0}
        if found:
            return max(found, key=lambda letter: found[letter])
    return None

"""Multiple choice: options as asked, the letters of right ones as answered, a lenient reading."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_uppercase

from mmrl.rewards.dress import fold, same_letters, undress
from mmrl.rewards.expressions import parse_expression
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.rewards.quantities import parse_quantity
from mmrl.rewards.text import normalize

INSTRUCTION = "The answer is the letter of the right option."
SEVERAL_INSTRUCTION = "Several options are right. The answer is their letters, such as A, C."

_NAMED = re.compile(
    r"(?:(?:the )?(?:(?:final|correct|right) )?(?:option|choice|answer)s?(?: is| are)?"
    r"|\u9009\u9879?|\u7b54\u6848[\u4e3a\u662f]?)\s*:?\s*(?=\W*(?:[A-Z]{1,8}|[a-z])(?![A-Za-z0-9_]))",
    re.IGNORECASE,
)
_LETTER = re.compile(
    r"[(\[<]?\s*(?P<letter>[A-Za-z])\s*[)\]>]?\s*(?:[.:,]|[-\u2013\u2014](?=\s*\S))?\s*"
    r"(?P<text>\S.*)?",
    re.DOTALL,
)
_BEHIND = re.compile(r"(?P<text>.*\S)\s*\(\s*(?P<letter>[A-Z])\s*\)", re.DOTALL)
_INNER = re.compile(r"\\(?:text|textbf|textrm|textit|mathrm|mathbf)\s*\{([^{}]*)\}")
_LISTED = re.compile(r"\[(.*)\]|\\?\{(.*?)\\?\}", re.DOTALL)
_SEVERAL = re.compile(r"\s*(?:[,;/&+|\n\u548c\u4e0e\u53ca]|\band\b)\s*")
_LETTERS = re.compile(r"[A-Z](?:\s*(?:,|/|;|&|and|or)\s*[A-Z])+|[A-Z]{2,8}")
_RUN = re.compile(r"(?:\(?[A-Z]\)?\s*){2,26}")
_SMALL_RUN = re.compile("(?=[a-z]{2})a?b?c?d?e?f?g?h?i?j?")
_PREFIX = re.compile(r"\s*\(?([A-Za-z])\s*[.):,]\)?\s*")
_LONGEST = 1_024  # characters that are compared with options as mathematics


@dataclass(frozen=True, slots=True)
class Choice:
    """Gold of a multiple-choice question: the options' texts without letters, the right letter.

    Where several options are right, `letter` holds all of their letters in order, as `AC`.
    """

    options: tuple[str, ...]
    letter: str

    def __post_init__(self) -> None:
        known = bool(self.letter) and set(self.letter) <= set(self.letters)
        if not known or "".join(sorted(set(self.letter))) != self.letter:
            raise ValueError(f"answer {self.letter!r} names none of {len(self.options)} options")

    @property
    def letters(self) -> str:
        return letters_of(self.options)

    @property
    def text(self) -> str:
        """The right option's text; of several, in one line."""
        return ", ".join(self.options[self.letters.index(letter)] for letter in self.letter)

    @property
    def instruction(self) -> str:
        """How to answer: by one letter, or by several."""
        return SEVERAL_INSTRUCTION if len(self.letter) > 1 else INSTRUCTION

    def read(self, text: str) -> Parsed[str]:
        """Read an answer as the letter, or the letters, of options."""
        if len(self.letter) > 1:
            return parse_letters(text, self.options)
        return parse_letter(text, self.options)


def choice_of(options: Sequence[str], answer: str) -> Choice:
    """The choice that a data set's options and answer state; none raises ValueError.

    Options may carry their letters. The answer is read as a model's would be: a letter in any
    dress, an option's own text, or several of either.
    """
    texts = strip_letters(tuple(map(str, options)))
    one = parse_letter(answer, texts)
    read = one if one.value else parse_letters(answer, texts)
    if read.value is None:
        raise ValueError(f"answer {answer!r:.80} names none of {len(texts)} options: {one.reason}")
    return Choice(texts, read.value)


def choice_of_text(options: Sequence[str], answer: str) -> Choice:
    """The choice whose option is the given text; none or several such options raise ValueError."""
    found = parse_option_text(answer, options)
    if found.value is None:
        raise ValueError(f"{found.reason}; options {list(options)!r:.200}")
    return Choice(tuple(options), found.value)


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
    matches = [match for option in options if (match := _PREFIX.match(fold(option)))]
    if "".join(match[1].upper() for match in matches) != letters_of(options):
        return tuple(options)
    # Folding takes one character for one, but for those that have no width.
    return tuple(
        option[match.end() :] if len(option) == len(match.string) else match.string[match.end() :]
        for option, match in zip(options, matches, strict=True)
    )


def parse_letter(text: str, options: Sequence[str]) -> Parsed[str]:
    r"""Read one of the options: its letter, its text, or the one before the other.

    The letter may be dressed (`(B)`, `B.`, `**B**`, `\text{(B)}`, `option B`); a small letter
    counts unless another option reads so. A letter with anything but its own option behind it is
    malformed, and more than one letter is `multiple`.

    Args:
        text: an answer region's text.
        options: the options' texts, without letters, from A on.

    Example:
        >>> [parse_letter(text, ["cat", "dog"]).value for text in ("**B**", "dog", "B. cat")]
        ['B', 'B', None]
    """
    lettered = _lettered(text, options) if len(text) <= _LONGEST else None
    if lettered is not None:
        return lettered
    by_text = parse_option_text(text, options)
    if by_text.value is not None:
        return by_text
    if _LETTERS.fullmatch(undress(text[:64])):
        return Parsed("multiple", None, f"several letters: '{text:.40}'")
    if by_text.status == "multiple":
        return by_text
    return malformed(f"not one of the letters {letters_of(options)}: '{text:.40}'")


def _lettered(text: str, options: Sequence[str]) -> Parsed[str] | None:
    """The option whose letter the text is, alone or with its own option; None if it is neither."""
    bare = undress(text)
    named = _NAMED.sub("", bare, count=1) if _NAMED.match(bare) else bare
    plain = _INNER.sub(r"\1", named.replace("**", "")).replace("~", " ").replace("\\ ", " ")
    for match in (_LETTER.fullmatch(undress(plain)), _BEHIND.fullmatch(plain)):
        letter = match["letter"].upper() if match else ""
        if match is None or letter not in letters_of(options):
            continue
        if match["text"] is None:
            small = match["letter"].islower()
            meant = parse_option_text(text, options).value if small else None
            if meant in (None, letter):
                return ok(letter)
            return Parsed("multiple", None, f"a letter, and the text of another: '{text:.40}'")
        if parse_option_text(match["text"], options).value == letter or _same_text(
            match["text"], options[letters_of(options).index(letter)]
        ):
            return ok(letter)
    return None


def parse_letters(text: str, options: Sequence[str]) -> Parsed[str]:
    """Read a set of options, `A, C`, `AC`, `(A)(C)` or their texts, as their letters in order.

    A letter that is said twice is malformed, as is `A or C`, which names neither.
    """
    bare = undress(text[:_LONGEST])
    named = _NAMED.sub("", bare, count=1) if _NAMED.match(bare) else bare
    listed = _LISTED.fullmatch(named)
    named = (listed[1] or listed[2] or "") if listed else named
    run = _RUN.fullmatch(named) or _SMALL_RUN.fullmatch(named)
    items = list(named) if run else _SEVERAL.split(named)
    said = [item.strip("' ") for item in items if item.strip("()'").strip()]
    read = [parse_letter(item, options) for item in said]
    letters = [one.value for one in read if one.value is not None]
    if len(text) > _LONGEST or not letters or len(letters) != len(read):
        return malformed(f"no set of the letters {letters_of(options)}: '{text:.40}'")
    if len(set(letters)) != len(letters):
        return malformed(f"a letter twice: '{text:.40}'")
    return ok("".join(sorted(letters)))


def parse_option_text(text: str, options: Sequence[str]) -> Parsed[str]:
    """Read the letter of the one option that the text is.

    The first of these that names any decides: the same characters; the same but for dress and
    spacing; but for case too; the same mathematics, spelled otherwise; the same number and unit;
    the same number without the option's unit.
    """
    if not text.strip():
        return malformed("none of the options: ''")
    for reading in _READINGS:
        wanted = reading(text)
        found = [
            letter
            for letter, option in zip(letters_of(options), options, strict=True)
            if wanted is not None and reading(option) == wanted
        ]
        if len(found) == 1:
            return ok(found[0])
        if found:
            return Parsed("multiple", None, f"{len(found)} options read '{text:.40}'")
    bare = _without_unit(text, options)
    if len(bare) == 1:
        return ok(bare[0])
    return malformed(f"none of the options: '{text:.40}'")


def _exact(text: str) -> str | None:
    return text.strip()


def _undressed(text: str) -> str | None:
    return " ".join(same_letters(undress(text)).split()) or None


def _folded(text: str) -> str | None:
    return normalize(undress(text)) or None


@lru_cache(maxsize=1_024)  # the options are read again for every answer
def _mathematics(text: str) -> object:
    expression = parse_expression(text).value if len(text) <= _LONGEST else None
    return expression.key if expression else None


def _value(text: str) -> object:
    return parse_quantity(text).value if len(text) <= _LONGEST else None


def _without_unit(text: str, options: Sequence[str]) -> list[str]:
    """Letters of the options that are this number with a unit, where the text has none."""
    said = parse_quantity(text).value if len(text) <= _LONGEST else None
    if said is None or said.unit or said.percent:
        return []
    read = [parse_quantity(option).value for option in options]
    lettered = zip(letters_of(options), read, strict=True)
    return [letter for letter, one in lettered if one and one.value == said.value]


_READINGS: tuple[Callable[[str], object], ...] = (
    _exact,
    _undressed,
    _folded,
    _mathematics,
    _value,
)


def _same_text(text: str, option: str) -> bool:
    """Two options may read alike; behind its letter each is the one that is meant."""
    return any((wanted := read(option)) is not None and read(text) == wanted for read in _READINGS)


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

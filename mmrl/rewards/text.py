"""Texts compared with references: normalisation, token F1, WER, ROUGE, BLEU.

Edit distance and longest common subsequence run on bit vectors, one big-integer step a token, so
that thousands of tokens take milliseconds and no length has to be cut off.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Literal

from mmrl.rewards.dress import same_letters

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NUMBER = re.compile(r"(?<![^\W_])-?[0-9]+(?:[.,][0-9]+)*(?![^\W_])")
_WORDS = re.compile(rf"{_NUMBER.pattern}|[^\W_]+")
_THOUSANDS = re.compile(r",(?=[0-9]{3}(?![0-9]))")
# Scripts that write no space between words: their characters are what is counted.
_UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_SOME_UNSPACED = re.compile(f"[{_UNSPACED}]")
# Tokenizer 13a of mteval, as sacrebleu has it: symbols apart, points and commas only off digits.
_13A_ENTITIES = (("<skipped>", ""), ("-\n", ""), ("\n", " "), ("&quot;", '"'), ("&amp;", "&"),
                 ("&lt;", "<"), ("&gt;", ">"))  # fmt: skip
_13A_RULES = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)

Smoothing = Literal["none", "add_one", "add_one_all"]
"""Of n-gram precisions: none; one added above unigrams (sacrebleu's add-k with k = 1, and BLEU
of the literature on sentences); one added everywhere (Lin & Och, the `evaluate` library), which
pays a little for any text at all."""


def normalize(text: str, punctuation: bool = False, articles: bool = False) -> str:
    """Fold case, widths, ligatures and white space; True takes the named kind out.

    Punctuation is that of every script; the sign and the point of a number are none.
    """
    text = unicodedata.normalize("NFC", same_letters(text).casefold())
    if punctuation:
        text = _without_punctuation(text)
    if articles:
        text = _ARTICLES.sub(" ", text)
    return " ".join(text.split())


def words(text: str) -> list[str]:
    """Lower-case runs of letters and digits, as ROUGE counts words, in any script.

    A character of a script without spaces (Han, kana, Thai ...) is a word, with its marks, and so
    is a number with its sign and point: `-3.5` is not 3 and 5.
    """
    text = same_letters(text).lower()
    if text.isascii():
        return _WORDS.findall(text)
    return [piece for word in _marked_words().findall(text) for piece in _unspaced(word)]


def written_words(text: str) -> list[str]:
    """What white space sets apart, case and stops kept, and the characters of unspaced scripts."""
    return [piece for word in same_letters(text).split() for piece in _unspaced(word)]


def token_f1(answer: Sequence[str], gold: Sequence[str]) -> float:
    """F1 of two bags of tokens, repeats counted; two empty bags agree in nothing and score 0."""
    return _f1((Counter(answer) & Counter(gold)).total(), len(answer), len(gold))


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Levenshtein distance of two token sequences (Hyyro's bit-vector form of Myers)."""
    if not a or not b:
        return len(a) + len(b)
    masks = _occurrences(a)
    every, last = (1 << len(a)) - 1, 1 << (len(a) - 1)
    plus, minus, distance = every, 0, len(a)
    for token in b:
        equal = masks.get(token, 0)
        diagonal = (((equal & plus) + plus) ^ plus) | equal | minus
        up, down = minus | (every & ~(diagonal | plus)), plus & diagonal
        distance += bool(up & last) - bool(down & last)
        up, down = (up << 1) | 1, down << 1
        plus, minus = (down | ~(diagonal | up)) & every, up & diagonal & every
    return distance


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence of two token sequences."""
    masks, every = _occurrences(a), (1 << len(a)) - 1
    row = every
    for token in b:
        used = row & masks.get(token, 0)
        row = ((row + used) | (row - used)) & every
    return len(a) - row.bit_count()


def wer(answer: Sequence[str], gold: Sequence[str]) -> float:
    """Word error rate: edit distance over the gold's length; an empty gold raises ValueError."""
    if not gold:
        raise ValueError("the word error rate needs a gold of at least one word")
    return edit_distance(gold, answer) / len(gold)


def rouge_n(answer: Sequence[str], gold: Sequence[str], n: int) -> float:
    """F1 of the n-grams, repeats counted; an empty gold raises ValueError."""
    _some(gold)
    ours, theirs = ngrams(answer, n), ngrams(gold, n)
    return _f1((ours & theirs).total(), ours.total(), theirs.total())


def rouge_l(answer: Sequence[str], gold: Sequence[str]) -> float:
    """F1 of the longest common subsequence; an empty gold raises ValueError."""
    _some(gold)
    return _f1(common_subsequence(gold, answer), len(answer), len(gold))


def mean_rouge(answer: str, gold: str) -> float:
    """Mean F1 of ROUGE-1, -2 and -L over unstemmed words (Video-R1's free-form reward).

    A gold of one word has no pairs, and ROUGE-2 is left out of its mean; published, such a gold
    cannot earn more than 2/3. A gold without words raises ValueError.
    """
    ours, theirs = words(answer), words(gold)
    scores = [rouge_n(ours, theirs, 1), rouge_l(ours, theirs)]
    if len(theirs) > 1:
        scores.append(rouge_n(ours, theirs, 2))
    return sum(scores) / len(scores)


def bleu(
    answer: Sequence[str],
    references: Sequence[Sequence[str]],
    smoothing: Smoothing = "add_one",
    max_order: int = 4,
) -> float:
    """Sentence BLEU in [0, 1] over several references; the brevity penalty takes the nearest.

    An empty answer scores 0, and no reference, or one without words, raises ValueError.
    """
    if not references:
        raise ValueError("BLEU needs at least one reference")
    for reference in references:
        _some(reference)
    if not answer:
        return 0.0
    logs = 0.0
    for n in range(1, max_order + 1):
        ours = ngrams(answer, n)
        allowed: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            allowed |= ngrams(reference, n)
        extra = smoothing == "add_one_all" or (smoothing == "add_one" and n > 1)
        matched, total = (ours & allowed).total() + extra, ours.total() + extra
        if not matched:
            return 0.0
        logs += math.log(matched / total)
    nearest = min((abs(len(r) - len(answer)), len(r)) for r in references)[1]
    brevity = min(0.0, 1 - nearest / len(answer))
    return math.exp(logs / max_order + brevity)


def tokenize_13a(text: str) -> list[str]:
    """Tokens of mteval's 13a tokenizer, which BLEU figures are usually quoted with.

    Characters of scripts without spaces stand apart, as in sacrebleu's tokenizers for them.
    """
    for entity, plain in _13A_ENTITIES:
        text = text.replace(entity, plain)
    text = f" {text} "
    for rule, replacement in _13A_RULES:
        text = rule.sub(replacement, text)
    return [piece for token in text.split() for piece in _unspaced(token)]


def ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """Count the n-grams of a token sequence."""
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def _occurrences(tokens: Sequence[str]) -> dict[str, int]:
    """For each token, a bit for each of its positions."""
    masks: dict[str, int] = {}
    for i, token in enumerate(tokens):
        masks[token] = masks.get(token, 0) | 1 << i
    return masks


def _some(gold: Sequence[str]) -> None:
    if not gold:
        raise ValueError("a score of words needs a gold of at least one word")


@cache
def _marks() -> str:
    """A character class of the marks that belong to the letter before them."""
    marks = (chr(code) for code in range(0x300, 0x10000))
    return "".join(mark for mark in marks if unicodedata.category(mark)[0] == "M")


@cache
def _marked_words() -> re.Pattern[str]:
    return re.compile(rf"{_NUMBER.pattern}|[^\W_](?:[^\W_]|[{_marks()}])*")


@cache
def _unspaced_pieces() -> re.Pattern[str]:
    return re.compile(f"[{_UNSPACED}][{_marks()}]*|[^{_UNSPACED}]+")


def _unspaced(word: str) -> list[str]:
    return _unspaced_pieces().findall(word) if _SOME_UNSPACED.search(word) else [word]


def _without_punctuation(text: str) -> str:
    """Take punctuation off but for that of numbers; what it parts in `3-5` stays apart."""
    out, at = [], 0
    for number in _NUMBER.finditer(text):
        between = _unpunctuated(text[at : number.start()])
        out += [between or " ", _THOUSANDS.sub("", number[0])]
        at = number.end()
    return "".join([*out, _unpunctuated(text[at:])])


def _unpunctuated(text: str) -> str:
    return "".join(
        c for c in text if c not in string.punctuation and unicodedata.category(c)[0] != "P"
    )


def _f1(common: int, ours: int, theirs: int) -> float:
    return 2 * common / (ours + theirs) if common else 0.0

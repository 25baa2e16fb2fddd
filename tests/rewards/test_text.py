"""Text measures against hand arithmetic, textbook recursions and the reference libraries."""

from __future__ import annotations

import math
import random
import time

import pytest

from mmrl.rewards.text import (
    bleu,
    common_subsequence,
    edit_distance,
    mean_rouge,
    normalize,
    rouge_l,
    rouge_n,
    token_f1,
    tokenize_13a,
    wer,
    words,
    written_words,
)

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "then", "it", "slept"]
TEXTS = [
    ("Hello, world! It's 3.5% - or 1,000?", "Hello world. It is 3.5 % or 1,000!"),
    ("the cat sat on the mat", "the cat sat on the mat"),
    ("the the the the", "the cat"),
    ("A&amp;B cost $5.", "A & B cost $ 5 ."),
    ("first line\nsecond-\nline", "first line second line"),
    ("a b c d e f", "f e d c b a"),
    ("x", "y z"),
]


def random_pairs(count: int) -> list[tuple[list[str], list[str]]]:
    rng = random.Random(0)
    draw = lambda low: rng.choices(WORDS, k=rng.randint(low, 90))  # noqa: E731
    return [(draw(0), draw(1)) for _ in range(count)]


def slow_distance(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (x != y)))
    return row[-1]


def slow_subsequence(a: list[str], b: list[str]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        previous, row = row, [0]
        for j, y in enumerate(b, 1):
            row.append(previous[j - 1] + 1 if x == y else max(previous[j], row[-1]))
    return row[-1]


def test_bit_vectors_equal_the_textbook_recursions() -> None:
    for a, b in random_pairs(200):
        assert edit_distance(a, b) == edit_distance(b, a) == slow_distance(a, b)
        assert common_subsequence(a, b) == common_subsequence(b, a) == slow_subsequence(a, b)


def test_wer_equals_jiwer() -> None:
    jiwer = pytest.importorskip("jiwer")
    for answer, gold in random_pairs(100):
        expected = jiwer.wer(" ".join(gold), " ".join(answer))
        assert wer(answer, gold) == pytest.approx(expected, abs=1e-12)


def test_wer_by_hand() -> None:
    assert wer(["hello", "word"], ["hello", "world"]) == 0.5
    assert wer([], ["a", "b"]) == 1.0
    assert wer(["a", "b", "c"], ["x"]) == 3.0
    with pytest.raises(ValueError, match="at least one word"):
        wer(["a"], [])


def test_tokens_equal_sacrebleus_13a() -> None:
    reference = pytest.importorskip("sacrebleu.tokenizers.tokenizer_13a").Tokenizer13a()
    for pair in TEXTS:
        for text in pair:
            assert tokenize_13a(text) == reference(text).split()


@pytest.mark.parametrize("smoothing", ["none", "add_one"])
def test_bleu_equals_sacrebleu(smoothing: str) -> None:
    metrics = pytest.importorskip("sacrebleu.metrics")
    method = {"smooth_method": "none"}
    if smoothing == "add_one":
        method = {"smooth_method": "add-k", "smooth_value": 1}
    scorer = metrics.BLEU(effective_order=False, **method)
    pairs = TEXTS + [(" ".join(a), " ".join(b)) for a, b in random_pairs(100) if a]
    for answer, gold in pairs:
        references = [gold, "the cat sat quietly on some mat"]
        expected = scorer.sentence_score(answer, references).score / 100
        ours = bleu(tokenize_13a(answer), [tokenize_13a(r) for r in references], smoothing)
        assert ours == pytest.approx(expected, abs=1e-9), answer


def test_bleu_by_hand() -> None:
    gold = [["the", "cat", "sat", "on", "the", "mat"]]
    assert bleu(gold[0], gold) == pytest.approx(1.0)
    precisions = (1 * 0.8 * 0.75 * (2 / 3)) ** 0.25
    expected = precisions * math.exp(-0.2)
    assert expected == pytest.approx(0.651, abs=5e-4)
    for smoothing in ("add_one", "add_one_all"):
        assert bleu(["the", "cat", "sat", "on", "mat"], gold, smoothing) == pytest.approx(expected)
    assert bleu([], gold) == bleu(["dog"], gold) == 0.0
    assert bleu(["dog"], gold, "add_one_all") > 0.0
    assert bleu(["the", "cat", "sat"], gold, "none") == 0.0
    with pytest.raises(ValueError, match="reference"):
        bleu(["a"], [])


def test_rouge_and_f1_by_hand() -> None:
    gold, ours = ["the", "cat", "sat"], ["the", "cat", "ran"]
    assert rouge_n(ours, gold, 1) == pytest.approx(2 / 3)
    assert rouge_n(ours, gold, 2) == pytest.approx(1 / 2)
    assert rouge_l(ours, gold) == pytest.approx(2 / 3)
    assert mean_rouge("The cat ran!", "the cat sat.") == pytest.approx((2 / 3 + 1 / 2 + 2 / 3) / 3)
    assert mean_rouge("cat", "cat") == 1.0
    assert mean_rouge("", "the cat") == mean_rouge("...", "the cat") == 0.0
    assert token_f1(["a", "a", "b"], ["a", "b", "b", "c"]) == pytest.approx(4 / 7)
    assert token_f1([], []) == 0.0


def test_normalize() -> None:
    assert normalize("  The\n CAT\uff01 ") == "the cat!"
    assert normalize("The cat, a dog.", punctuation=True, articles=True) == "cat dog"
    assert normalize("theatre") == normalize("theatre", articles=True) == "theatre"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("\u4f60\u597d\u4e16\u754c", ["\u4f60", "\u597d", "\u4e16", "\u754c"]),
        ("na\u00efve", ["na\u00efve"]), ("nai\u0308ve", ["na\u00efve"]), ("na ve", ["na", "ve"]),
        ("\u043a\u0440\u0430\u0441\u043d\u0430\u044f \u041c\u0410\u0428\u0418\u041d\u0410.",
         ["\u043a\u0440\u0430\u0441\u043d\u0430\u044f", "\u043c\u0430\u0448\u0438\u043d\u0430"]),
        ("\u0939\u093f\u0928\u094d\u0926\u0940 x", ["\u0939\u093f\u0928\u094d\u0926\u0940", "x"]),
        ("\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", ["\u0e2a", "\u0e27\u0e31", "\u0e2a",
        "\u0e14\u0e35"]),
        ("\u30c6\u30ec\u30d3", ["\u30c6", "\u30ec", "\u30d3"]), ("-5", ["-5"]), ("5", ["5"]),
        ("a-5", ["a", "5"]), ("3.5 or 1,000!", ["3.5", "or", "1,000"]), ("don't", ["don", "t"]),
        ("iPhone\u624b\u673a", ["iphone", "\u624b", "\u673a"]), ("...", []), ("\u3002\uff01", []),
    ],
)  # fmt: skip
def test_words_of_every_script(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_scores_of_words_hold_for_every_script_and_want_words() -> None:
    for text in (
        "\u4f60\u597d\u4e16\u754c",
        "\u043a\u043e\u0442",
        "caf\u00e9",
        "-5",
        "\u0645\u0631\u062d\u0628\u0627",
        "\ud55c\uad6d",
    ):
        assert mean_rouge(text, text) == 1.0
        assert wer(written_words(text), written_words(text)) == 0.0
        assert bleu(tokenize_13a(text), [tokenize_13a(text)]) == pytest.approx(1.0)
    assert (
        mean_rouge("-5", "5") == mean_rouge("5", "-5") == mean_rouge("na ve", "na\u00efve") == 0.0
    )
    assert mean_rouge("15", "1.5") == 0.0
    assert 0.0 < mean_rouge("\u4f60\u597d", "\u4f60\u597d\u4e16\u754c") < 1.0
    for gold in ("...", "", "\u3002"):
        with pytest.raises(ValueError, match="at least one word"):
            mean_rouge("a", gold)
    for score in (
        lambda: rouge_l(["a"], []),
        lambda: rouge_n(["a"], [], 1),
        lambda: bleu(["a"], [[]]),
    ):
        with pytest.raises(ValueError, match="at least one word"):
            score()


def test_texts_compare_by_their_letters() -> None:
    assert normalize("cafe\u0301") == normalize("caf\u00e9") == "caf\u00e9"
    assert (
        normalize("\ufb01ne") == "fine" and normalize("\uff21\uff22\uff23\u3000\uff11") == "abc 1"
    )
    assert normalize("x\u00b2") != normalize("x2") and normalize("\u2460") != normalize("1")
    assert normalize("-5", punctuation=True) != normalize("5", punctuation=True)
    assert normalize("1.5", punctuation=True) != normalize("15", punctuation=True)
    assert normalize("1,000!", punctuation=True) == normalize("1000", punctuation=True)
    assert normalize("\u4f60\u597d\u3002", punctuation=True) == "\u4f60\u597d"
    assert written_words("don\u2019t Stop") == ["don't", "Stop"]


def test_long_texts_take_milliseconds() -> None:
    a, b = ["a", "b"] * 8_000, ["b", "c", "a"] * 5_000
    started = time.process_time()
    edit_distance(a, b)
    common_subsequence(a, b)
    bleu(a, [b])
    assert time.process_time() - started < 2.0

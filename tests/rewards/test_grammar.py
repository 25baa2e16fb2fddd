from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable

import pytest

from mmrl.rewards.grammar import BoxedAnswer, Grammar, TagAnswer, Think
from mmrl.rewards.thoughts import EMPTY, continued, note_of, opening_of
from mmrl.types import Answer, Status

GRAMMARS: list[Grammar] = [
    grammar(think) for grammar in (TagAnswer, BoxedAnswer) for think in Think.__args__
]


def read(grammar: Grammar, text: str, truncated: bool = False) -> tuple[Status, str | None, bool]:
    region = grammar.parse(Answer(text, truncated))
    return region.answer.status, region.answer.value, region.well_formed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a</think><answer>5</answer>", ("ok", "5", True)),
        (" <think>a\nb</think>\n <answer>\n5\n6 </answer>\n", ("ok", "5\n6", True)),
        ("<answer>5</answer>", ("ok", "5", False)),
        ("so <think>a</think><answer>5</answer>", ("ok", "5", False)),
        ("<think>a</think> so <answer>5</answer>", ("ok", "5", False)),
        ("<think>a</think><answer>5</answer> done", ("ok", "5", False)),
        # drafts inside the thought are not answers
        ("<think><answer>4</answer></think><answer>5</answer>", ("ok", "5", True)),
        ("<think><answer>4</answer></think>", ("missing", None, False)),
        ("<think>a</think>", ("missing", None, False)),
        ("", ("missing", None, False)),
        ("<think>a</think><answer></answer>", ("missing", None, False)),
        ("<think>a</think><answer> \n </answer>", ("missing", None, False)),
        ("<think>a</think><answer>5", ("malformed", None, False)),
        ("<think>a</think>5</answer>", ("malformed", None, False)),
        ("<think>a</think></answer>5<answer>", ("malformed", None, False)),
        ("<think>a<answer>5</answer>", ("malformed", None, False)),
        ("a</think><answer>5</answer>", ("ok", "5", False)),
        ("<answer>4</answer></think><answer>5</answer>", ("ok", "5", False)),
        ("a</think>b</think><answer>5</answer>", ("multiple", None, False)),
        ("</think>a<think><answer>5</answer>", ("malformed", None, False)),
        ("<think>a</think><answer>5</answer><answer>6</answer>", ("multiple", None, False)),
        ("<think>a</think><answer><answer>5</answer></answer>", ("multiple", None, False)),
        ("<think>a</think><answer>5<answer>", ("multiple", None, False)),
        ("<think></think><think>a</think><answer>5</answer>", ("multiple", None, False)),
        ("<think>a</think><ANSWER>5</ANSWER>", ("missing", None, False)),
    ],
)
def test_tag_answer(text: str, expected: tuple[Status, str | None, bool]) -> None:
    assert read(TagAnswer(), text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"<think>a</think> The answer is \boxed{5}.", ("ok", "5", True)),
        (r"\boxed{5}", ("ok", "5", False)),
        (r"<think></think>\boxed{\frac{1}{\sqrt{2}}}", ("ok", r"\frac{1}{\sqrt{2}}", True)),
        (r"<think></think>\boxed{\{1, 2\}}", ("ok", r"\{1, 2\}", True)),
        (r"<think></think>\boxed{a\\}", ("ok", r"a\\", True)),
        (r"<think></think>\boxed{5\}", ("malformed", None, False)),
        (r"<think></think>\boxed{5", ("malformed", None, False)),
        (r"<think></think>\boxed{}", ("missing", None, False)),
        (r"<think></think>\boxed 5", ("missing", None, False)),
        (r"<think></think>\fbox{5}", ("missing", None, False)),
        (r"<think></think>\boxed{5} or \boxed{6}", ("multiple", None, False)),
        (r"<think></think>\boxed{\boxed{5}}", ("multiple", None, False)),
        (r"<think></think>\boxed{5} \boxed{", ("multiple", None, False)),
        (r"<think>\boxed{4}</think>\boxed{5}", ("ok", "5", True)),
        (r"<think>\boxed{5}", ("malformed", None, False)),
    ],
)
def test_boxed_answer(text: str, expected: tuple[Status, str | None, bool]) -> None:
    assert read(BoxedAnswer(), text) == expected


@pytest.mark.parametrize(
    ("think", "text", "well_formed"),
    [
        ("none", "<answer>5</answer>", True),
        ("none", "<think>a</think><answer>5</answer>", False),
        ("optional", "<answer>5</answer>", True),
        ("optional", "<think>a</think><answer>5</answer>", True),
        ("required", "<answer>5</answer>", False),
        ("opened", "a</think><answer>5</answer>", True),
        ("opened", "<think>a</think><answer>5</answer>", True),
        ("opened", "<answer>5</answer>", False),
    ],
)
def test_thought_variants(think: Think, text: str, well_formed: bool) -> None:
    assert read(TagAnswer(think), text) == ("ok", "5", well_formed)


@pytest.mark.parametrize("think", Think.__args__)
@pytest.mark.parametrize(
    ("opening", "text", "well_formed"),
    [
        ("<think>\n", "a\n</think>\n<answer>5</answer>", True),
        ("<think>\n", "<answer>4</answer></think><answer>5</answer>", True),
        ("<think>\n", "<think>a</think><answer>5</answer>", True),
        ("<think>\n", "<answer>5</answer>", False),
        ("<think>\n", "a</think>so <answer>5</answer>", False),
        (EMPTY, "<answer>5</answer>", True),
        (EMPTY, "so <answer>5</answer>", False),
        (EMPTY, "<think>a</think><answer>5</answer>", True),
    ],
)
def test_what_the_template_wrote_of_a_thought_is_read_with_it(
    think: Think, opening: str, text: str, well_formed: bool
) -> None:
    region = TagAnswer(think).parse(Answer(text, opening=opening))
    assert (region.answer.value, region.well_formed) == ("5", well_formed)


def test_an_opened_thought_that_is_cut_is_truncated() -> None:
    cut = Answer("a <answer>4</answer> b", truncated=True, opening="<think>\n")
    assert TagAnswer().parse(cut).well_formed is False
    assert TagAnswer().parse(Answer("a", True, opening="<think>\n")).answer.status == "truncated"


@pytest.mark.parametrize(
    ("rendered", "opening"),
    [
        ("<|im_start|>assistant\n<think>\n", "<think>\n"), ("assistant\n<think>", "<think>\n"),
        ("assistant\n<think>\n\n</think>\n\n", EMPTY), ("assistant\n<think></think>", EMPTY),
        ("\u25c1think\u25b7", "<think>\n"), ("[THINK]", "<think>\n"), ("<thinking>\n", "<think>\n"),
        ("<|channel>thought\n", "<think>\n"), ("<|channel>thought\n<channel|>", EMPTY),
        ("Reason between <think> </think> tags.<|im_end|>\n<|im_start|>assistant\n", ""),
        ("<think> </think> tags\nassistant:", ""), ("", ""), ("</think>", ""),
    ],
)  # fmt: skip
def test_a_template_that_writes_of_a_thought_is_recognised(rendered: str, opening: str) -> None:
    assert opening_of("x" * 1000 + rendered) == opening
    assert bool(note_of(opening)) == bool(opening)


@pytest.mark.parametrize(
    "marks", [("\u25c1think\u25b7", "\u25c1/think\u25b7"), ("[THINK]", "[/THINK]")]
)
def test_other_families_marks_are_thoughts_too(marks: tuple[str, str]) -> None:
    text = f"{marks[0]}<answer>4</answer>{marks[1]}<answer>5</answer>"
    assert read(TagAnswer(), text) == ("ok", "5", True)
    opened = Answer(text.removeprefix(marks[0]), opening="<think>\n")
    assert TagAnswer().parse(opened).well_formed


@pytest.mark.parametrize("grammar", GRAMMARS, ids=str)
@pytest.mark.parametrize("opening", ["", "<think>\n", EMPTY])
def test_targets_go_on_where_the_template_stopped(grammar: Grammar, opening: str) -> None:
    for thought in ("", "a thought"):
        text = continued(opening, grammar.write("5", thought))
        region = grammar.parse(Answer(text, opening=opening))
        assert (region.answer.value, region.well_formed) == ("5", True)
        assert (opening + text).count("<think>") <= 1


def test_truncation_is_blamed_only_where_the_answer_is_not_there() -> None:
    assert read(TagAnswer(), "<think>a", truncated=True)[0] == "truncated"
    assert read(TagAnswer(), "<think>a</think><answer>5", truncated=True)[0] == "truncated"
    assert read(BoxedAnswer(), r"<think>a</think>\boxed{5", truncated=True)[0] == "truncated"
    assert read(BoxedAnswer(), r"<think>a</think>\boxed{5}, so", truncated=True)[0] == "ok"
    double = r"<think>a</think>\boxed{5}\boxed{6}"
    assert read(BoxedAnswer(), double, truncated=True)[0] == "multiple"


def test_declared_refusal_is_a_status_and_is_well_formed() -> None:
    grammar = TagAnswer("none", refusal="unachievable")
    assert "'unachievable'" in grammar.instruction()
    assert read(grammar, "<answer> Unachievable </answer>") == ("refusal", None, True)
    assert read(TagAnswer("none"), "<answer>unachievable</answer>")[0] == "ok"


def test_caps() -> None:
    grammar = TagAnswer("none", max_characters=40, max_region_characters=5)
    assert read(grammar, "<answer>12345</answer>")[0] == "ok"
    assert read(grammar, "<answer>123456</answer>")[0] == "malformed"
    assert read(grammar, "<answer>1</answer>" + " " * 22)[0] == "ok"
    assert read(grammar, "<answer>1</answer>" + " " * 23)[0] == "malformed"


@pytest.mark.parametrize("grammar", GRAMMARS, ids=str)
def test_what_a_grammar_writes_it_reads(grammar: Grammar) -> None:
    for payload in ("5", r"\frac{1}{2}", "[1, 2, 3, 4]"):
        assert read(grammar, grammar.write(payload, "a thought")) == ("ok", payload, True)
        assert read(grammar, grammar.write(payload)) == ("ok", payload, True)


@pytest.mark.parametrize("grammar", GRAMMARS, ids=str)
def test_echoing_the_instruction_is_no_answer(grammar: Grammar) -> None:
    status, value, well_formed = read(grammar, grammar.instruction())
    assert (value, well_formed) == (None, False)
    assert status != "ok"


@pytest.mark.parametrize("grammar", GRAMMARS, ids=str)
def test_nothing_raises(grammar: Grammar) -> None:
    pieces = ["<think>", "</think>", "<answer>", "</answer>", r"\boxed{", "{", "}", "\\", "5", " "]
    rng = random.Random(0)
    for _ in range(3000):
        text = "".join(rng.choices(pieces, k=rng.randrange(12)))
        region = grammar.parse(Answer(text, truncated=rng.random() < 0.5))
        assert (region.answer.value is not None) == (region.answer.status == "ok")
        if region.well_formed:
            assert region.answer.status == "ok"


UNITS = [
    "<think>", "</think>", "<answer>", "</answer>", r"\boxed{", "{", "}", r"\{",
    r"</think>\boxed{", "<think></think><answer>",
]  # fmt: skip


def bytecode_lines(call: Callable[[], object]) -> int:
    """Count executed lines: an operation count that no busy machine can disturb."""
    count = 0

    def trace(frame: object, event: str, argument: object) -> object:
        nonlocal count
        count += event == "line"
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        call()
    finally:
        sys.settrace(previous)
    return count


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("grammar", [TagAnswer, BoxedAnswer])
def test_ten_times_the_text_is_at_most_ten_times_the_work(
    grammar: type[TagAnswer] | type[BoxedAnswer], unit: str
) -> None:
    parser = grammar("optional", max_characters=10**7)
    small, large = (Answer(unit * n) for n in (200, 2000))
    lines = [bytecode_lines(lambda a=answer: parser.parse(a)) for answer in (small, large)]
    assert lines[1] <= 10 * lines[0] + 50


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("grammar", [TagAnswer, BoxedAnswer])
def test_a_megabyte_takes_a_moment_without_caps(
    grammar: type[TagAnswer] | type[BoxedAnswer], unit: str
) -> None:
    # Counted lines miss work inside C calls (regex backtracking would hide there); a cubic or
    # quadratic scan of this text takes minutes to hours, a linear one milliseconds.
    parser = grammar("optional", max_characters=10**7)
    text = unit * (10**6 // len(unit))
    started = time.process_time()
    parser.parse(Answer(text))
    assert time.process_time() - started < 2.0

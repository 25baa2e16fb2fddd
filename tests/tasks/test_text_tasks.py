"""JSON schemas, instructions, intents, faithful answers."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from mmrl.rewards.json_schema import check_schema, field_accuracy, is_valid
from mmrl.rewards.labels import Label
from mmrl.scoring.tasks import load_task
from mmrl.tasks.faithful_qa.task import Faithful
from mmrl.tasks.json_schema.task import Adherence
from tests.grading import asked, graded, reward

SCHEMA = {"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a", "b"]}
GOLD = Adherence(SCHEMA, {"a": 1, "b": "x"})


def tagged(text: str) -> str:
    return f"<think>hm</think> <answer>{text}</answer>"


@pytest.mark.parametrize(
    ("text", "fields", "valid"),
    [
        ('{"a": 1, "b": "x"}', 1.0, 1.0),
        ('{"b": "x", "a": 1.0}', 1.0, 1.0),
        ('{"a": 1}', 0.5, 0.0),
        ("text", 0.0, 0.0),
        ('{"a": 0, "b": ""}', 0.0, 1.0),
        ('{"a": true, "b": "x"}', 0.5, 0.0),
        ('{"a": "1", "b": "x"}', 0.5, 0.0),
        ('{"a": 1, "b": "x", "c": 1, "d": 2}', 0.5, 1.0),
        ('{"a": 1, "b": "x", "b": "x"}', 0.0, 0.0),
        ('{"a": NaN, "b": "x"}', 0.0, 0.0),
        ('{"a": 1e999, "b": "x"}', 0.0, 0.0),
        ('[{"a": 1, "b": "x"}]', 0.0, 1.0),
        ("[" * 500, 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_json_schema(text: str, fields: float, valid: float) -> None:
    score = graded("json_schema", GOLD, tagged(text))
    assert (score.parts["fields"], score.parts["valid"]) == (fields, valid)
    assert score.reward == score.metric == fields


def test_field_accuracy_counts_leaves_at_their_places() -> None:
    assert field_accuracy([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert field_accuracy({"a": {"b": [1, {}]}}, {"a": {"b": [1, {}]}}) == 1.0
    assert field_accuracy({}, {"a": 1}) == field_accuracy({"a": []}, {"a": {}}) == 0.0
    assert field_accuracy([1] * 100, [1]) == 0.01
    breakdown = load_task("json_schema").breakdown([1.0, 0.0], [{"valid": 1.0, "exact": True}, {}])
    assert breakdown == {"validity": 0.5, "exact": 0.5}


NODE = {"$defs": {"n": {"type": "object", "properties": {"c": {"$ref": "#/$defs/n"}}}},
        "$ref": "#/$defs/n"}  # fmt: skip
SCHEMAS: list[Any] = [
    True, False, {}, {"type": "integer"}, {"type": ["string", "null"]}, {"enum": [1, "a", None]},
    {"const": 1}, {"minimum": 1, "maximum": 2}, {"exclusiveMinimum": 1, "exclusiveMaximum": 2},
    {"minLength": 1, "maxLength": 2}, {"minItems": 1, "maxItems": 2}, {"items": {"type": "number"}},
    {"required": ["a"]}, SCHEMA, {**SCHEMA, "additionalProperties": False},
    {"additionalProperties": {"type": "string"}}, {"minProperties": 1, "maxProperties": 1},
    {"anyOf": [{"type": "string"}, {"minimum": 2}]}, {"oneOf": [{"minimum": 1}, {"maximum": 1}]},
    {"allOf": [{"minimum": 1}, {"maximum": 1}]}, {"not": {"type": "string"}}, NODE,
    {"type": "object", "properties": {"a": False}},
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, 1, 1.0, 1.5, 2, -1, "", "a", "ab", "abc", [], [1], [1, "a"], [1, 2, 3],
    [True], {}, {"a": 1}, {"a": 1, "b": "x"}, {"a": 1, "b": "x", "c": 2}, {"a": True, "b": "x"},
    {"c": {"c": {}}}, {"c": {"c": 1}},
]  # fmt: skip


def test_validity_equals_jsonschemas() -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    for schema in SCHEMAS:
        check_schema(schema)
        for value in VALUES:
            expected = validator(schema).is_valid(value)
            assert is_valid(value, schema) == expected, (schema, value)


@pytest.mark.parametrize(
    "schema",
    [{"pattern": "(a+)+$"}, {"$ref": "http://x/y"}, {"type": "int"}, [], {"items": {"if": {}}},
     {"properties": {"a": {"format2": 1}}}],
)  # fmt: skip
def test_schemas_beyond_the_closed_part_are_refused(schema: Any) -> None:
    with pytest.raises(ValueError, match=r"not supported|leaves|unknown JSON type|a schema is"):
        asked("json_schema", {"prompt": "?", "schema": schema, "gold": {"a": 1}})


def test_a_reference_to_itself_ends() -> None:
    assert not is_valid({"a": 1}, {"$ref": "#"})
    with pytest.raises(ValueError, match="does not obey"):
        asked("json_schema", {"prompt": "?", "schema": SCHEMA, "gold": '{"a": 1}'})


MAT = ("the cat sat on the mat",)


@pytest.mark.parametrize(
    ("text", "bleu"),
    [
        ("the cat sat on the mat", 1.0),
        ("the cat sat on mat", (0.8 * 0.75 * 2 / 3) ** 0.25 * math.exp(-0.2)),
        ("", 0.0),
        ("dog", 0.0),
        ("the " * 500, 0.0),
    ],
)
def test_instruction_following(text: str, bleu: float) -> None:
    score = graded("instruction_following", MAT, tagged(text))
    assert score.reward == score.metric == pytest.approx(bleu, abs=3e-3)


def test_instruction_variants_and_references() -> None:
    assert reward("instruction_following", MAT, tagged("dog")) == 0.0
    assert 0.0 < reward("instruction_following", MAT, tagged("dog"), variant="code") < 0.1
    assert reward("instruction_following", ("a b c d", *MAT), tagged(MAT[0])) == 1.0
    assert reward("instruction_following", MAT, MAT[0]) == 0.0
    long = "word " * 5_000
    assert reward("instruction_following", (long,), tagged(long)) == pytest.approx(1.0)
    for references in ([], "", ["fine", "  "]):
        with pytest.raises(ValueError, match="reference"):
            asked("instruction_following", {"prompt": "?", "references": references})


GREET = Label("greet", ("greet", "book_train"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [(tagged("greet"), 2.0), (tagged("book_train"), 1.0), ("greet", 0.0), (tagged("Greet."), 2.0),
     (tagged("greet, book_train"), 1.0), (tagged("greeting"), 1.0)],
)  # fmt: skip
def test_intent(text: str, expected: float) -> None:
    assert reward("intent", GREET, text) == expected


def test_intent_candidates_are_closed_and_shown() -> None:
    row = {"utterance": "hi", "intents": {"greet": "say hello"}, "intent": "greet", "seen": False}
    sample = asked("intent", row)
    assert "- greet: say hello" in sample.parts[0].text  # type: ignore[union-attr]
    assert load_task("intent").breakdown([1.0], [sample.meta]) == {"unseen": 1.0}
    for change in ({"intent": "book"}, {"intents": []}, {"intent": ""}):
        with pytest.raises(ValueError, match=r"none of|candidate|empty"):
            asked("intent", {**row, **change})


CONTEXT = "The old bridge was built by Clara Weiss in 1912 and crosses the river near the mill."
BRIDGE = Faithful(("1912",), CONTEXT, "When was the bridge built?")
PASSAGE = "Clara Weiss built it; the year was 1912."


def answered(long: str, short: str) -> str:
    return f"<think>hm</think>\n<long_answer>{long}</long_answer>\n<answer>{short}</answer>"


def parts(text: str, **params: Any) -> list[float]:
    return list(graded("faithful_qa", BRIDGE, text, **params).parts.values())


def test_faithful_worked_examples() -> None:
    assert reward("faithful_qa", BRIDGE, answered(PASSAGE, "1912")) == 4.0
    long = f"1912: {CONTEXT}"[: int(0.9 * len(CONTEXT))]
    assert reward("faithful_qa", BRIDGE, answered(long, "1912")) == 3.0
    wrong = answered("Clara Weiss built it, and nobody knows when.", "1913")
    assert reward("faithful_qa", BRIDGE, wrong) <= 2.0


def test_faithful_terms() -> None:
    half = CONTEXT[20:60]
    assert parts(answered(half, "1912")) == [1.0, 1.0, 0.0, 1.0]
    assert parts(answered(half, "1912"), variant="code") == [1.0, 1.0, 1.0, 1.0]
    assert parts(answered("It is said:\n" + PASSAGE, "the 1912.")) == [1.0, 1.0, 1.0, 1.0]
    assert parts(answered(PASSAGE, "not 1912")) == [0.0, 1.0, 1.0, 1.0]
    assert parts(answered("It was in 19120, says the context of it.", "1912"))[1] == 0.0
    assert parts("<think></think><answer>1912</answer>") == [1.0, 0.0, 0.0, 0.0]
    assert parts(PASSAGE) == [0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "text",
    [
        f"<think></think><answer>1912</answer><long_answer>{PASSAGE}</long_answer>",
        f"<long_answer>{PASSAGE}</long_answer><answer>1912</answer>",
        answered(PASSAGE, "1912") + "ok",
        f"<think></think><long_answer>{PASSAGE}<answer>1912</answer></long_answer>",
        answered(PASSAGE, "1912") + f"<long_answer>{PASSAGE}</long_answer>",
        f"<think></think><long_answer>{PASSAGE}<answer>1912</answer>",
        "<think></think><long_answer></long_answer><answer>1912</answer>",
    ],
)
def test_faithful_format_is_three_regions_in_order(text: str) -> None:
    found = graded("faithful_qa", BRIDGE, text)
    assert (found.parts["format"], found.parts["length"]) == (0.0, 0.0)


def test_faithful_drafts_in_the_thought_do_not_count() -> None:
    draft = f"<think><long_answer>x</long_answer><answer>1</answer></think>{PASSAGE}"
    assert reward("faithful_qa", BRIDGE, draft) == 0.0
    full = answered(PASSAGE, "1912").replace("hm", "<answer>7</answer> <long_answer>")
    assert parts(full) == [1.0, 1.0, 1.0, 1.0]
    started = time.process_time()
    for unit in ("<long_answer>", "</long_answer>", "<answer>", "a "):
        graded("faithful_qa", BRIDGE, unit * (60_000 // len(unit)))
    assert time.process_time() - started < 1.0


def test_faithful_golds() -> None:
    row = {"question": "?", "context": CONTEXT, "answer": "1912"}
    for change in ({"answer": ""}, {"answer": []}, {"answer": "the"}, {"context": "1912"}):
        with pytest.raises(ValueError, match=r"empty|too short"):
            asked("faithful_qa", {**row, **change})

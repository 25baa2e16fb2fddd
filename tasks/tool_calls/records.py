"""ToolRL rows and BFCL records -> what is asked and the expected calls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrl.corpus.fields import own_column
from mmrl.errors import UserError
from mmrl.rewards.call_match import AllowedCall, ExactCall, ExpectedCall
from mmrl.rewards.calls import parse_call_lines
from mmrl.types import Record

# ToolRL's system prompt goes on with its own description of the format; the task's takes its place.
_TOOLRL_FORMAT = "**Steps for Each Turn**"


@dataclass(frozen=True)
class Gold:
    """Expected calls, in any order; `has_response` None leaves a reply to the user open."""

    calls: tuple[ExpectedCall, ...]
    has_response: bool | None = None


@dataclass(frozen=True)
class Question:
    """A record as asked."""

    system: str
    user: str
    gold: Gold
    category: str


def read_bfcl(path: Path) -> Iterator[Record]:
    """Read a BFCL file (JSON lines despite its name), its answers merged in as `ground_truth`.

    A file of answers that is not there leaves the records without one; a broken line raises
    UserError.
    """
    answers_path = path.parent / "possible_answer" / path.name
    answers = {a["id"]: a["ground_truth"] for a in _lines(answers_path)}
    for fields in _lines(path):
        gold = {"ground_truth": answers[fields["id"]]} if fields["id"] in answers else {}
        yield Record(str(fields["id"]), {**fields, **gold}, path.parent)


def read_question(record: Record, loose: bool) -> Question:
    """Read a record of either form; gold that is no list of calls raises ValueError."""
    if "reward_model" in record.fields:
        return _read_toolrl(record.fields, loose)
    if "function" in record.fields:
        return _read_bfcl_fields(record)
    raise ValueError("the columns fit neither ToolRL (reward_model) nor BFCL (function)")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    raise UserError(f"{path}:{number}: not JSON ({error})") from None


def _read_toolrl(fields: Mapping[str, Any], loose: bool) -> Question:
    messages = own_column(fields, "prompt")
    system = "\n".join(m["content"] for m in messages if m["role"] == "system")
    user = "\n".join(m["content"] for m in messages if m["role"] != "system")
    gold = str(fields["reward_model"]["ground_truth"])
    _, found, rest = gold.partition("<tool_call>")
    block, closed, after = rest.partition("</tool_call>")
    calls: tuple[ExpectedCall, ...] = ()
    if found:
        parsed = parse_call_lines(block)
        if parsed.value is None or not closed:
            raise ValueError(f"gold is not a list of calls: {parsed.reason}")
        calls = tuple(ExactCall(c.name, c.arguments, loose) for c in parsed.value)
    has_response = "<response>" in (after if found else gold)
    if not user.strip() or not (found or has_response):
        raise ValueError("a row needs a question and a gold call or response")
    category = "tool" if calls else "no_tool"
    return Question(
        system.partition(_TOOLRL_FORMAT)[0].strip(), user, Gold(calls, has_response), category
    )


def _read_bfcl_fields(record: Record) -> Question:
    fields = record.fields
    category = record.id.rpartition("_")[0] or "all"
    functions = {f["name"]: f for f in fields["function"]}
    golds = fields.get("ground_truth")
    if golds is None and "irrelevance" not in record.id:
        raise ValueError("no ground_truth, and the id does not say irrelevance")
    calls = tuple(_allowed_call(gold, functions) for gold in golds or ())
    turn: Sequence[Mapping[str, str]] = own_column(fields, "question")[0]
    said = "\n".join(m["content"] for m in turn if m["role"] == "system")
    listed = "\n".join(json.dumps(f, ensure_ascii=False) for f in fields["function"])
    system = "\n\n".join(filter(None, (said, f"You can call these functions:\n{listed}")))
    user = "\n".join(m["content"] for m in turn if m["role"] != "system")
    return Question(system, user, Gold(calls), category)


def _allowed_call(gold: Mapping[str, Any], functions: Mapping[str, Any]) -> AllowedCall:
    ((name, allowed),) = gold.items()
    if name not in functions:
        raise ValueError(f"gold calls '{name}', which is not offered")
    if not all(isinstance(values, list) and values for values in allowed.values()):
        raise ValueError(f"gold of '{name}' lists no values for an argument")
    parameters = functions[name]["parameters"]
    types = {
        key: (str(p["type"]), str((p.get("items") or {}).get("type", "")))
        for key, p in parameters["properties"].items()
    }
    return AllowedCall(name, allowed, types, tuple(parameters.get("required", ())))

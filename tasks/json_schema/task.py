"""Answer with a JSON value that adheres to a schema: share of fields that match the gold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.json_schema import check_schema, field_accuracy, is_valid
from mmrl.rewards.json_text import parse_json
from mmrl.rewards.parsed import Parsed
from mmrl.task import RewardPart
from mmrl.types import Answer, Record, Sample, Score, Text

MAX_CHARACTERS = 32_768


@dataclass(frozen=True, slots=True)
class Adherence:
    """A schema and the value that is right, both as JSON values."""

    schema: Any
    value: Any


@dataclass(frozen=True)
class Task(contract.Task):
    """Field accuracy as the reward; validity and format are logged with weight 0."""

    think: Think = "required"

    name: ClassVar[str] = "json_schema"
    summary: ClassVar[str] = "fill a JSON schema, share of fields that match"
    parts: ClassVar[Mapping[str, RewardPart]] = {
        "fields": RewardPart(0.0, 1.0),
        "valid": RewardPart(0.0, 1.0, 0.0),
        "format": RewardPart(0.0, 1.0, 0.0),
    }
    metric: ClassVar[str] = "field_accuracy"

    def sample(self, record: Record) -> Sample:
        """Ask a record: `prompt`, `schema` and `gold`, the latter as values or as JSON text."""
        fields = record.fields
        schema, value = _value(fields["schema"]), _value(fields["gold"])
        check_schema(schema)
        if not is_valid(value, schema):
            raise ValueError("the gold does not obey its own schema")
        grammar = self._grammar()
        question = f"{fields['prompt']}\nSchema: {json.dumps(schema, ensure_ascii=False)}"
        return Sample(
            id=record.id,
            task=self.name,
            parts=(Text(f"{question}\n{grammar.instruction()} The answer is JSON that obeys it."),),
            gold=Adherence(schema, value),
            target=grammar.write(json.dumps(value, ensure_ascii=False)),
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one answer region."""
        region = self._grammar().parse(answer)
        parsed: Parsed[Any] = region.answer.then(
            lambda text: parse_json(text, max_depth=16, max_characters=MAX_CHARACTERS)
        )
        matched = valid = 0.0
        if parsed.value is not None:
            matched = field_accuracy(parsed.value, gold.value)
            valid = float(is_valid(parsed.value, gold.schema))
        return Score(
            {"fields": matched, "valid": valid, "format": float(region.well_formed)},
            metric=matched,
            status=parsed.status,
            reason=parsed.reason,
            evidence={"valid": valid, "exact": matched == 1.0},
        )

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Rate of valid answers and of answers that match in every field."""
        return {
            name: sum(float(meta.get(key, 0.0)) for meta in metas) / len(metas)
            for name, key in (("validity", "valid"), ("exact", "exact"))
        }

    def _grammar(self) -> TagAnswer:
        return TagAnswer(self.think, max_region_characters=MAX_CHARACTERS)


def _value(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value

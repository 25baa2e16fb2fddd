"""Audio questions (AVQA, MMAU): the text of one of the choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.choices import Choice, choice_of_text, letters_of
from mmrl.rewards.dress import undress
from mmrl.rewards.graded import ACCURACY_AND_FORMAT, Extractor, grade, official_text
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.rewards.text import normalize, words
from mmrl.task import RewardPart, mean_by_each
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text


@dataclass(frozen=True)
class Task(contract.Task):
    """The text of the right choice, case and punctuation aside.

    `extractor` official is MMAU's token rule for the metric; the reward is always the strict one.
    """

    think: Think = "none"
    extractor: Extractor = "strict"

    name: ClassVar[str] = "audio_qa"
    summary: ClassVar[str] = "questions about a sound, answered by the text of a choice"
    parts: ClassVar[Mapping[str, RewardPart]] = ACCURACY_AND_FORMAT
    metric: ClassVar[str] = "accuracy"
    official: ClassVar[Mapping[str, Any]] = {"extractor": "official"}

    def sample(self, record: Record) -> Sample:
        """Ask an MMAU record (`choices`, `answer` text) or an AVQA one (`multi_choice`, index)."""
        fields = record.fields
        question, gold, source = _ask_avqa(fields) if "multi_choice" in fields else _ask(fields)
        grammar = TagAnswer(self.think)
        choices = "\n".join(gold.options)
        hint = "The answer is one of these choices, word for word:"
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                MediaRef("audio", media_source(record, source)),
                Text(f"{question}\n{grammar.instruction()} {hint}\n{choices}"),
            ),
            gold=gold,
            target=grammar.write(gold.text),
            meta={key: fields.get(key) for key in ("task", "difficulty", "category")},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one answer region; the metric may follow MMAU's script."""
        region = TagAnswer(self.think).parse(answer)
        parsed = region.answer.then(lambda text: _read_choice(text, gold.options))
        right = metric = parsed.value == gold.letter
        if self.extractor == "official":
            metric = same_tokens(official_text(region, answer), gold)
        # Without a thought any tagged text would be well formed.
        formed = region.well_formed and parsed.value is not None
        return grade(replace(region, well_formed=formed), parsed, right, metric)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Accuracy per task, difficulty and category."""
        return mean_by_each(("task", "difficulty", "category"), values, metas)


def same_tokens(text: str, gold: Choice) -> bool:
    """MMAU's rule: all of the right choice's words are said, and none that only others have."""
    said, right = set(words(text)), set(words(gold.text))
    wrong = {word for option in gold.options for word in words(option)} - right
    return right <= said and not said & wrong


def _key(text: str) -> str:
    text = undress(text)
    return normalize(text, punctuation=True) or normalize(text)


def _read_choice(text: str, options: Sequence[str]) -> Parsed[str]:
    lettered = zip(letters_of(options), options, strict=True)
    found = [letter for letter, option in lettered if _key(option) == _key(text)]
    return ok(found[0]) if len(found) == 1 else malformed(f"none of the choices: '{text:.40}'")


def _ask(fields: Mapping[str, Any]) -> tuple[str, Choice, Any]:
    gold = _merged(fields["choices"], str(fields["answer"]))
    return str(fields["question"]), gold, fields["audio_id"]


def _ask_avqa(fields: Mapping[str, Any]) -> tuple[str, Choice, Any]:
    """AVQA's answer is an index from 0, and its questions speak of a video."""
    options, index = fields["multi_choice"], int(fields["answer"])
    if not 0 <= index < len(options):
        raise ValueError(f"answer {index} is the index of none of {len(options)} choices")
    question = str(fields["question_text"]).replace("video", "audio")
    return question, _merged(options, str(options[index])), fields["audio_path"]


def _merged(choices: Sequence[Any], answer: str) -> Choice:
    """The gold among choices of which those that read alike are one: 27 of MMAU's 1000 have some.

    The answer is a text, so that which of two equal ones is meant does not matter.
    """
    distinct: dict[str, str] = {}
    for choice in map(str, choices):
        distinct.setdefault(_key(choice), choice)
    return choice_of_text(tuple(distinct.values()), distinct.get(_key(answer), answer))

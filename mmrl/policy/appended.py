"""Whether a conversation written turn by turn is what the model's own template makes of the whole.

Training is exact either way: what is trained is what was sampled, and that is appended. It matters
to whoever serves the model afterwards through its chat template, which writes earlier turns anew.
"""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError

from mmrl.errors import MediaError, UserError
from mmrl.policy.families import chat
from mmrl.policy.family import Family
from mmrl.policy.lockstep import blank
from mmrl.types import MediaRef, Observation, Part, Role, Sample, Text

THOUGHT, ANSWER = "Let me look.", "Yes."
ASKED: tuple[Part, ...] = (Text("Is it so?"),)
OBSERVED = Observation(None, "", "And now?")


def differences(processor: Any, family: Family, role: Role = "user") -> list[str]:
    """What an earlier turn loses or gains when the template writes three turns as a whole.

    Empty where nothing does. Raises UserError where the template has no such role.
    """
    found = []
    opened = _prompt(processor).rstrip().endswith("<think>")
    thinking = f"{THOUGHT}\n</think>\n\n{ANSWER}"
    thinking = thinking if opened else f"<think>\n{thinking}"
    if not _same(processor, thinking if opened else ANSWER, role):
        known = "</think>" in thinking and opened
        found.append("thoughts are dropped" if known else "the answer is written otherwise")
    if not opened and not _same(processor, thinking, role):
        found.append("thoughts are dropped or moved")
    if not found and not _same(processor, f" {ANSWER}\n", role):
        found.append("white space around an answer is trimmed")
    if _cuts_anew(family):
        found.append("a picture is cut otherwise once there are several")
    return found


def _same(processor: Any, answer: str, role: Role) -> bool:
    observed = Observation(None, "", OBSERVED.text, role=role)
    between = chat.turn_after(processor, observed, ())
    appended = f"{_prompt(processor)}{answer}{between}{answer}{between}"
    turns: list[tuple[str, tuple[Part, ...]]] = [("user", ASKED)]
    turns += [("assistant", (Text(answer),)), (role, chat.told(observed))] * 2
    try:
        return _render(processor, turns) == appended
    except TemplateError as error:
        raise UserError(f"the model's chat template refuses a third turn: {error}") from error


def _prompt(processor: Any) -> str:
    return _render(processor, [("user", ASKED)])


def _render(processor: Any, turns: list[tuple[str, tuple[Part, ...]]]) -> str:
    text: str = processor.apply_chat_template(
        [{"role": role, "content": chat.contents(parts, ())} for role, parts in turns],
        tokenize=False,
        add_generation_prompt=True,
    )
    return text


def _cuts_anew(family: Family) -> bool:
    """Whether a picture has other tokens beside another than alone."""
    if "image" not in family.declaration.takes:
        return False
    picture = blank(family, "image")
    ref = MediaRef("image", b"")
    try:
        counts = [
            family.encode(Sample("", "", (*[ref] * n, *ASKED), None), [picture] * n)
            .media[0]
            .num_tokens
            for n in (1, 2)
        ]
    except MediaError:  # too long for the run's limit: then there is no second one either
        return False
    return counts[0] != counts[1]

"""Turns as they are appended against the whole conversation by released templates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmrl.errors import UserError
from mmrl.policy.appended import differences
from mmrl.policy.appending import continued, joined
from mmrl.policy.families import chat
from mmrl.policy.policy import Policy
from mmrl.types import MediaRef, Observation, Role, Sample, Text
from tests.families.cases import Case, ask, picture, policy

trl = pytest.importorskip("trl")
TEMPLATES = Path(trl.__file__).parent / "chat_templates"
KEEPS: list[str] = []
MOVES = ["thoughts are dropped"]
TRIMS = ["white space around an answer is trimmed"]


def with_template(name: str, template: str) -> Policy:
    made = policy(name)
    made.processor.chat_template = (TEMPLATES / f"{template}.jinja").read_text()
    return made


@pytest.mark.parametrize(
    ("name", "template", "role", "said"),
    [
        ("qwen2_5_vl", "qwen2_5_vl", "user", KEEPS),
        ("qwen3_vl", "qwen3_vl", "user", KEEPS),
        ("qwen3_vl", "qwen3_vl", "tool", KEEPS),
        ("qwen3_5", "qwen3_5_think", "user", MOVES),
        ("qwen3_5", "qwen3_5_think", "tool", TRIMS),
        ("gemma3", "gemma3", "user", TRIMS),
        ("smolvlm", "smolvlm", "user", ["the answer is written otherwise"]),
    ],
)
def test_the_probe_says_what_a_template_does_to_earlier_turns(
    name: str, template: str, role: Role, said: list[str]
) -> None:
    made = with_template(name, template)
    found = differences(made.processor, made.family, role)
    assert found[: len(said)] == said and (said or not found)


def test_a_picture_that_is_cut_anew_and_a_role_that_is_not_there_are_said() -> None:
    made = policy("llava_onevision")
    assert "a picture is cut otherwise once there are several" in differences(
        made.processor, made.family
    )
    gemma = with_template("gemma3", "gemma3")
    with pytest.raises(UserError, match="role 'tool'"):
        differences(gemma.processor, gemma.family, "tool")


@pytest.mark.parametrize(
    ("name", "template", "role", "answer"),
    [
        ("qwen2_5_vl", "qwen2_5_vl", "user", "A red one, I think."),
        ("qwen3_vl", "qwen3_vl", "user", "<think>\nHm.\n</think>\n\nA red one."),
        ("qwen3_vl", "qwen3_vl", "tool", "A red one."),
        ("qwen3_5", "qwen3_5_think", "tool", "Hm.\n</think>\n\nA red one."),
        ("internvl", None, "user", "A red one."),
        ("qwen2_5_omni", None, "user", "A red one."),
    ],
)
def test_ids_are_the_processors_own_of_the_whole_conversation(
    name: str, template: str | None, role: Role, answer: str
) -> None:
    made = policy(name) if template is None else with_template(name, template)
    first, later = picture(1, 112, 84), picture(2, 84, 112)
    prompt = ask(made, Case((first, "What is here?")))
    tokenizer = made.processor.tokenizer
    said = tokenizer(answer, add_special_tokens=False)["input_ids"]
    whole = prompt
    observations = [
        (Observation(0, "", "And to the left?", role=role), []),
        (Observation(0, "", parts=(MediaRef("image", b""), Text("Now?")), role=role), [later]),
    ]
    for observation, media in observations:
        end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        whole = continued(whole, np.array([*said, end], dtype=np.int64))
        encoded = [made.family.encode_medium(m) for m in media]
        whole = joined(whole, made.family.environment_tokens(whole, observation, encoded))
    turns = chat.messages(Sample("", "", (MediaRef("image", b""), Text("What is here?")), None), [])
    for observation, _ in observations:
        turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        turns.append({"role": role, "content": chat.contents(chat.told(observation), [])})
    text = made.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    out = made.processor(
        text=[text],
        images=[Image.fromarray(m.array) for m in (first, later)],
        add_special_tokens=False,
        **{
            k: v
            for k, v in made.family.intakes["image"].arguments(first).items()  # type: ignore[attr-defined]
            if k == "images_kwargs"
        },
    )
    assert whole.ids.tolist() == list(out["input_ids"][0])

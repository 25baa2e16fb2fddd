"""A reward model as a judge: the mean of its named logits for prompt and answer, in a process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import processors
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from mmrl.errors import ConfigError
from mmrl.policy.model_folder import model_folder
from mmrl.scoring.judges.backend_of_judge import Usage
from mmrl.scoring.judges.judge_config import JudgeConfig
from mmrl.scoring.judges.local_judge import LocalJudge
from mmrl.scoring.judges.question import Question
from tests.conftest import TINY

ANSWERS = ("3", "", "I see three digits, and none of them is a nine: 3, 4 and 7.", "<|im_end|> 9")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny reward model with three heads, whose tokenizer puts a start token in front."""
    folder = tmp_path_factory.mktemp("reward")
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(model_folder(TINY))
    start = "<|endoftext|>"
    number = tokenizer.convert_tokens_to_ids(start)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, number)]
    )
    tokenizer.chat_template = (
        start + "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_labels=3,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder


def asked(answer: str) -> Question:
    return Question("pointwise", "", ("How many digits?",), (answer,))


def test_a_batch_has_the_values_of_each_answer_alone(folder: Path) -> None:
    heads = {"right": 0, "kind": 2}
    config = JudgeConfig(kind="reward_model", path=folder, heads=heads, batch=3)
    judge, usage = LocalJudge(config), Usage()
    try:
        found = judge.ask([asked(answer) for answer in ANSWERS], usage)
    finally:
        judge.close()
    model = LlamaForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for answer, value in zip(ANSWERS, found, strict=True):
        said = [("user", "How many digits?"), ("assistant", answer)]
        ids = tokenizer.apply_chat_template(
            [{"role": role, "content": text} for role, text in said],
            return_tensors="pt",
            return_dict=True,
        )["input_ids"]
        assert int((ids == ids[0, 0]).sum()) == 1, "one start token"
        logits = model(input_ids=ids).logits[0].double()
        assert value == pytest.approx([float((logits[0] + logits[2]) / 2)], abs=1e-5)
    assert len({value[0] for value in found}) == len(ANSWERS), "no answer is taken for another"


def test_a_head_that_is_not_there_is_a_users_mistake(folder: Path) -> None:
    judge = LocalJudge(JudgeConfig(kind="reward_model", path=folder, heads={"x": 3}))
    try:
        with pytest.raises(ConfigError, match=r"heads \[3\] of a model with 3 logits"):
            judge.ask([asked("3")], Usage())
    finally:
        judge.close()

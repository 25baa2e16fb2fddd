"""A model of text alone: it shares prompts and trains on questions without media."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from mmrl.cli import main
from mmrl.errors import UserError
from mmrl.model_config import ModelConfig
from mmrl.policy.policy import Policy, load_policy
from mmrl.policy.shared_prefix import SharedRow
from tests.families import tiny
from tests.families.cases import Case, ask, picture, relative, responses, shared
from tests.runs import write_config

# Content is one string here; a list of parts would be written out as Python writes it.
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokens = tiny.tokenizer({})
    tokens.chat_template = TEMPLATE
    torch.manual_seed(0)
    model = tf.Qwen3ForCausalLM(tf.Qwen3Config(**tiny.text_config(tokens)))
    model.generation_config.eos_token_id = tokens.eos_token_id
    path = tmp_path_factory.mktemp("text")
    model.save_pretrained(path)
    tokens.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def made(folder: Path) -> Policy:
    with pytest.warns(UserWarning, match="'qwen3', the generic one does: prompts are shared"):
        return load_policy(ModelConfig(path=str(folder)), torch.device("cpu"))


def test_numbers_are_those_of_the_model(made: Policy, folder: Path) -> None:
    assert made.family.declaration.takes == ()
    other: Any = tf.Qwen3ForCausalLM.from_pretrained(folder).eval()
    for case in (Case(("How many are there?",)), Case(("And now?", "It is one text of two."))):
        prompt, answers = ask(made, case), responses(0, (4, 1, 6))
        assert "[" not in made.processor.tokenizer.decode(prompt.ids)
        with torch.no_grad():
            found = shared(made, [SharedRow(prompt, answers)])
            wanted = []
            for answer in answers:
                ids = torch.from_numpy(prompt.ids)[None]
                whole = torch.cat([ids, torch.from_numpy(answer)[None]], dim=1)
                logits = other(whole).logits[0, len(prompt.ids) - 1 : -1]
                logits = logits.index_fill(-1, made.banned, float("-inf"))
                wanted.append(logits.log_softmax(-1)[range(len(answer)), answer])
        assert relative(found, torch.cat(wanted)) < 1e-5


def test_copies_are_not_tried_again(made: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmrl.policy.families.generic_sharing.Probe", None)
    assert made.frozen_copy().family.declaration == made.family.declaration


def test_a_picture_ends_the_run_in_one_line(made: Policy) -> None:
    with pytest.raises(UserError, match="of type 'qwen3' has no encoder of pictures"):
        made.family.encode_medium(picture(1))


def run(folder: Path, tmp_path: Path, record: dict[str, Any]) -> int:
    (tmp_path / "records.jsonl").write_text(json.dumps(record) + "\n")
    config = {
        "run": str(tmp_path / "run"),
        "model": {"path": str(folder)},
        "data": {
            "task": "custom",
            "path": str(tmp_path / "records.jsonl"),
            "params": {"function": "tests.verifiers:counts_letters"},
        },
        "algorithm": {"name": "grpo", "group_size": 3},
        "rollout": {"max_new_tokens": 4, "scoring_workers": 1},
        "trainer": {"steps": 1, "prompts_per_step": 1},
    }
    return main(["train", str(write_config(tmp_path / "run.yaml", config))])


def test_it_trains_on_text(folder: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path, {"prompt": "How many?", "answer": "2"}) == 0
    (step,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert step["step"] == 1
    saved = next((tmp_path / "run" / "checkpoints").iterdir())
    assert load_policy(ModelConfig(path=str(saved)), torch.device("cpu")).family.end_ids


def test_media_are_refused_before_anything_is_loaded(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    assert run(folder, tmp_path, {"prompt": "<image>?", "images": ["a.png"], "answer": "2"}) == 2
    assert "without an encoder of pictures or sound" in capsys.readouterr().err

"""A run with adapters, end to end: checkpoint in PEFT's format, exact resume, export, eval."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from mmrl.cli import main
from mmrl.model_config import LoraConfig, ModelConfig
from mmrl.policy.attention import active_layout
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy, load_policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.scoring.tasks import load_task
from mmrl.task import Task
from mmrl.types import Prompt, Sample, Text
from tests.families.cases import relative, responses, shared
from tests.runs import make_digits, run_config, write_config

peft = pytest.importorskip("peft")

STEPS = 4


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    make_digits(folder / "digits", train=16, test=4)
    assert main(["train", str(config_for(folder, "whole"))]) == 0
    return folder


def config_for(workspace: Path, name: str) -> Path:
    config = run_config(
        workspace / name,
        workspace / "digits",
        # A KL asks for the reference: the base, with the adapters off.
        model={"lora": {"rank": 4, "dropout": 0.1}},
        algorithm={"kl_coefficient": 0.02, "updates": {"mini_batches": 2}},
        optimizer={"learning_rate": 1e-2},
        trainer={"steps": STEPS, "prompts_per_step": 2, "checkpoint_every": 2},
    )
    return write_config(workspace / f"{name}.yaml", config)


def step(workspace: Path, name: str, number: int) -> Path:
    return workspace / name / "checkpoints" / f"step_{number}"


def adapters(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def logprobs(made: Policy, workspace: Path) -> Tensor:
    task: Task = load_task("digit_count", {})
    record = next(iter(task.records(workspace / "digits" / "digit_count" / "test.jsonl")))
    prompt = Encoder(made.family).prompt(task.sample(record))
    with torch.no_grad():
        return shared(made, [SharedRow(prompt, responses(0, (4, 6)))])


def test_the_checkpoint_is_a_peft_adapter_that_has_learnt(workspace: Path) -> None:
    folder = step(workspace, "whole", STEPS)
    assert not (folder / "model.safetensors").exists()
    first, last = adapters(step(workspace, "whole", 2)), adapters(folder)
    assert any(not torch.equal(first[key], last[key]) for key in last)

    base = AutoModelForImageTextToText.from_pretrained(
        json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    )
    found = peft.PeftModel.from_pretrained(base, str(folder))
    own = peft.get_peft_model_state_dict(found)
    assert own.keys() == last.keys()
    assert all(torch.equal(own[key], last[key]) for key in last)


def test_a_resumed_run_ends_with_the_same_adapters(workspace: Path) -> None:
    shutil.copytree(workspace / "whole", workspace / "cut")
    shutil.rmtree(step(workspace, "cut", STEPS))
    assert main(["train", str(config_for(workspace, "cut")), "--resume"]) == 0
    whole, cut = (adapters(step(workspace, name, STEPS)) for name in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_export_merges_what_was_trained(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = workspace / "whole"
    assert main(["export", str(run), "--out", str(tmp_path / "adapter")]) == 0
    merging = ["export", str(run), "--merge", "--dtype", "float32"]
    assert main([*merging, "--out", str(tmp_path / "model")]) == 0
    assert "merged into" in capsys.readouterr().out
    assert not (tmp_path / "adapter" / "trainer").exists()
    assert not (tmp_path / "model" / "adapter_config.json").exists()

    cpu = torch.device("cpu")
    trained = load_policy(ModelConfig(path=str(tmp_path / "adapter")), cpu)
    merged = load_policy(ModelConfig(path=str(tmp_path / "model")), cpu)
    start = load_policy(ModelConfig(path="asset:tiny_qwen2_5_vl"), cpu)
    wanted = logprobs(trained, workspace)
    assert relative(logprobs(merged, workspace), wanted) < 1e-5
    assert relative(logprobs(start, workspace), wanted) > 1e-3

    data = str(workspace / "digits" / "digit_count" / "test.jsonl")
    command = ["eval", "--task", "digit_count", "--data", data, "--model"]
    out = [str(tmp_path / f"{n}.json") for n in (0, 1)]
    assert main([*command, str(step(workspace, "whole", STEPS)), "--out", out[0]]) == 0
    assert main([*command, str(tmp_path / "model"), "--out", out[1]]) == 0
    answers = [[a["text"] for a in json.loads(Path(o).read_text())["answers"]] for o in out]
    assert answers[0] == answers[1]


def test_export_refuses_in_one_line(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err
    assert main(["export", str(workspace / "whole"), "--out", str(workspace)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_dropout_and_recomputation_act_while_learning_only() -> None:
    config = ModelConfig(
        path="asset:tiny_qwen2_5_vl",
        gradient_checkpointing=True,
        lora=LoraConfig(rank=2, dropout=0.5),
    )
    made = load_policy(config, torch.device("cpu"))
    with torch.no_grad():
        for name, parameter in made.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    layer = made.model.model.language_model.layers[0]
    calls: list[int] = []
    layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    row = SharedRow(text_prompt(made), responses(0, (4, 6)))

    def scored() -> Tensor:
        calls.clear()
        return shared(made, [row])

    still = scored()
    assert torch.equal(scored(), still)
    found = []
    for seed in (1, 1, 2):
        with made.learning(seed):
            found.append(scored())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2]) and not torch.equal(found[0], still)
    assert torch.equal(scored(), still)
    layout = lay_out([row], made.device)
    with made.learning(1), active_layout(layout):
        calls.clear()
        made.logprobs(layout, [row.prompt], 1.0)[0].sum().backward()
    assert len(calls) == 2, "the layer runs again in the backward pass"


def text_prompt(made: Policy) -> Prompt:
    return Encoder(made.family).prompt(Sample("s", "test", (Text("How many?"),), gold=None))

"""A tiny policy with two engines on it, and what tests of such pairs ask."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmrl import plugins
from mmrl.engines.engine import Engine, Sampling
from mmrl.engines.hf import HFEngine
from mmrl.model_config import LoraConfig, ModelConfig
from mmrl.policy.attention import active_layout
from mmrl.policy.family import Limits
from mmrl.policy.policy import Policy, load_policy, wrap
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.policy.weights import weights_of
from mmrl.rollout_config import RolloutConfig
from mmrl.types import Prompt, Response
from tests.engines.models import AS_RELEASED, IN_FLOAT32, LOUD, LOUDER, MODELS
from tests.families import cases

LENGTH = 8
TIED = ", tied"
DENSE = ", dense"
GREEDY = Sampling(LENGTH, temperature=0.0)
SAMPLED = Sampling(LENGTH, temperature=1.3)

Build = Callable[[Policy, ModelConfig, RolloutConfig], Engine]


class Pair:
    """A tiny policy with the embedded engine and one of vLLM's on it.

    Of a model whose name ends in TIED, the LM head is the embeddings; of one that ends in LOUD, the
    logits are as large as a trained model's; one that ends in DENSE has no experts. With `lora` the
    policy has adapters, whose second half is zero.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        build: Build,
        rollout: RolloutConfig,
        lora: LoraConfig | None = None,
    ) -> None:
        self.name = name
        asked_kinds = {**MODELS, **IN_FLOAT32}[name.removesuffix(TIED)]
        name, _, manner = name.partition(",")
        self.policy = cases.policy(name)
        if manner == TIED[1:]:
            self.policy = tie(self.policy)
        elif manner == DENSE[1:]:
            self.policy = dense(self.policy, name)
        elif manner == LOUD[1:]:
            loud(self.policy.model)
        _write_as_released(self.policy, name)
        self.policy.save(folder)
        self.folder = folder
        model = ModelConfig(path=str(folder), max_prompt_tokens=2000, lora=lora)
        if lora is not None:
            self.policy = load_policy(model, torch.device("cpu"), seed=3)
        self.vllm = build(self.policy, model, rollout)
        self.hf = HFEngine(self.policy)
        self.prompts = {
            label: cases.ask(self.policy, case) for label, case in cases.cases(asked_kinds).items()
        }

    def sync(self, version: int = 1) -> None:
        """Give vLLM what the policy is now."""
        self.vllm.sync(weights_of(self.policy, version))

    def compare(self, prompts: list[Prompt], sampling: Sampling = GREEDY) -> float:
        """Largest gap of log-probs, where the tokens are the same."""
        counts = [1] * len(prompts)
        pairs = zip(
            self.hf.generate(prompts, counts, sampling, 0),
            self.vllm.generate(prompts, counts, sampling, 0),
            strict=True,
        )
        gaps = []
        for (wanted,), (found,) in pairs:
            assert found.ids.tolist() == wanted.ids.tolist()
            assert (found.finish, found.text) == (wanted.finish, wanted.text)
            gaps.append(np.abs(found.logprobs - wanted.logprobs).max())
        return float(max(gaps))


def _write_as_released(made: Policy, name: str) -> None:
    """Put into configuration and vocabulary what vLLM finds in a released model's."""
    for place, value in AS_RELEASED.get(name, {}).items():
        part, _, key = place.rpartition(".")
        setattr(getattr(made.model.config, part), key, value)
    if name == "gemma3":
        made.processor.tokenizer.add_tokens(["\n" * count for count in (1, 2, 3, 4)])


def pair_of(name: str, folder: Path, build: Build, engine: str = "vllm", **arguments: Any) -> Pair:
    """A tiny model with such an engine, as the tests ask it; `arguments` are vLLM's own."""
    rollout = RolloutConfig(engine=engine, max_new_tokens=LENGTH, max_sequences=64, vllm=arguments)
    return Pair(name, folder, build, rollout)


def tie(made: Policy) -> Policy:
    """The same model with the embeddings as its head."""
    config = copy.deepcopy(made.model.config)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = True
    model = type(made.model)(config).eval()
    weights = made.model.state_dict()
    model.load_state_dict({**weights, "lm_head.weight": model_embeddings(weights)})
    model.generation_config = made.model.generation_config
    module = plugins.load("family", "qwen2_5_vl")
    tied = wrap(model, made.processor, module.build(model, made.processor, Limits(2000)))
    assert tied.model.get_output_embeddings().weight is tied.model.get_input_embeddings().weight
    return tied


def dense(made: Policy, name: str) -> Policy:
    """The same model with one MLP in each layer in the place of experts, and weights of its own."""
    config = copy.deepcopy(made.model.config)
    config.text_config.mlp_only_layers = list(range(config.text_config.num_hidden_layers))
    torch.manual_seed(0)
    model = type(made.model)(config).eval()
    weights = made.model.state_dict()
    kept = {n: weights[n] for n in model.state_dict() if n in weights}
    model.load_state_dict({**model.state_dict(), **kept})
    model.generation_config = made.model.generation_config
    module = plugins.load("family", name)
    return wrap(model, made.processor, module.build(model, made.processor, Limits(2000)))


@torch.no_grad()
def loud(model: Any) -> Any:
    """Give a Gemma 4 logits near their cap, and scores as large as other models'; returns it.

    Its attention divides by nothing: what a trained model's query norms hold is drawn here as 1.
    """
    language = model.model.language_model
    language.norm.weight.mul_(LOUDER)
    for layer in language.layers:
        weight = layer.self_attn.q_norm.weight
        weight.mul_(len(weight) ** -0.5)
    return model


def model_embeddings(weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    (name,) = (name for name in weights if name.endswith("embed_tokens.weight"))
    return weights[name]


def teacher_forced(
    policy: Policy, prompt: Prompt, group: Sequence[Response], heat: float
) -> np.ndarray:
    """What the trainer computes for the responses to a prompt, in order."""
    layout = lay_out([SharedRow(prompt, tuple(r.ids for r in group))], policy.device)
    with active_layout(layout), torch.no_grad():
        return policy.logprobs(layout, [prompt], heat)[0].numpy()


def move(parameters: list[torch.nn.Parameter], seed: int) -> None:
    """Change weights as an update would, only much further."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in parameters:
            p.add_(
                torch.randn(p.shape, generator=generator) * 0.2 * p.std(correction=0).clamp(0.01)
            )

"""Invariant 1 for layers that remember: a response goes on from what its own prompt ended with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from torch import Tensor, nn

from mmrl.engines.decoding import Decoding
from mmrl.engines.prefill import Prefill
from mmrl.policy.attention import active_layout
from mmrl.policy.recurrent import Memory, Recurrence
from mmrl.policy.recurrent_layers import LAYERS, Recurs, leave, share
from mmrl.policy.shared_prefix import SharedPrefix, SharedRow, lay_out
from mmrl.policy.tiles import SLACK, Run
from tests.families.cases import relative
from tests.rollout.test_hf import bare_prompt

CPU = torch.device("cpu")
HIDDEN = 32
# Fed tokens of each response; the last prompt has one, which makes the two one sequence.
ROWS: list[tuple[int, tuple[int, ...]]] = [
    (1, (3, 1)),
    (63, (1, 0, 70)),
    (64, ()),
    (65, (2, 130, 64, 63)),
    (200, (5, 5)),
    (9, (60,)),
]


def delta_net() -> nn.Module:
    from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5GatedDeltaNet

    config = tf.Qwen3_5TextConfig(
        hidden_size=HIDDEN,
        linear_key_head_dim=8,
        linear_value_head_dim=12,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        num_hidden_layers=4,
    )
    return Qwen3_5GatedDeltaNet(config, 1)


def short_convolution(bias: bool = False) -> nn.Module:
    from transformers.models.lfm2.modeling_lfm2 import Lfm2ShortConv

    config = tf.Lfm2Config(
        hidden_size=HIDDEN, num_hidden_layers=2, full_attn_idxs=[0], conv_bias=bias
    )
    return Lfm2ShortConv(config, 1)


def mamba2(least_step: float = 0.001) -> nn.Module:
    from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHMamba2Mixer

    config = tf.NemotronHConfig(
        hidden_size=HIDDEN,
        layers_block_type=["full_attention", "linear_attention"],
        ssm_state_size=8,
        mamba_num_heads=4,
        mamba_head_dim=8,
        n_groups=2,
        chunk_size=32,
        time_step_min=least_step,
        use_bias=True,
    )
    return NemotronHMamba2Mixer(config, 1)


def hybrid(module: str, name: str, config: str, least_step: float = 0.0, **more: Any) -> nn.Module:
    """A recurrent layer of a text model with layers of two kinds, by its class's name."""
    kind = getattr(import_module(f"transformers.models.{module}.modeling_{module}"), name)
    given = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "time_step_limit": (least_step, 1e9)}
    made = getattr(tf, config)(**given, **more)
    layer: nn.Module = kind(made, 1)
    if module == "falcon_h1":  # its model gives each layer what it multiplies by
        from transformers.models.falcon_h1.modeling_falcon_h1 import compute_mup_vector

        layer.register_buffer("mup_vector", compute_mup_vector(made))
    return layer


DELTA = {
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
MAMBA = {
    "mamba_d_ssm": 2 * HIDDEN,
    "mamba_d_state": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 2,
    "mamba_chunk_size": 32,
}

KINDS: dict[str, Callable[[], nn.Module]] = {
    "delta net": delta_net,
    "short convolution": short_convolution,
    "short convolution with biases": lambda: short_convolution(bias=True),
    "mamba2": mamba2,
    "mamba2 that clamps": lambda: mamba2(least_step=0.5),
    "Qwen3-Next": lambda: hybrid(
        "qwen3_next", "Qwen3NextGatedDeltaNet", "Qwen3NextConfig", **DELTA
    ),
    "OLMo-Hybrid": lambda: hybrid(
        "olmo_hybrid", "OlmoHybridGatedDeltaNet", "OlmoHybridConfig", **DELTA
    ),
    "LFM2-MoE": lambda: hybrid(
        "lfm2_moe",
        "Lfm2MoeShortConv",
        "Lfm2MoeConfig",
        layer_types=["full_attention", "conv"],
    ),
    "Falcon-H1": lambda: hybrid(
        "falcon_h1",
        "FalconH1Mixer",
        "FalconH1Config",
        0.5,
        ssm_multipliers=[0.5, 1.5, 0.7, 1.2, 0.8],
        **MAMBA,
    ),
    "Bamba": lambda: hybrid("bamba", "BambaMixer", "BambaConfig", 0.5, **MAMBA),
    "Granite hybrid": lambda: hybrid(
        "granitemoehybrid",
        "GraniteMoeHybridMambaLayer",
        "GraniteMoeHybridConfig",
        0.5,
        **MAMBA,
    ),
}
if hasattr(tf, "Lfm3Config"):  # transformers 5.24 has it
    KINDS["LFM3"] = lambda: hybrid(
        "lfm3",
        "Lfm3ShortConv",
        "Lfm3Config",
        layer_types=["full_attention", "conv"],
        conv_bias=True,
    )
every_kind = pytest.mark.parametrize("kind", KINDS)


def layers(kind: str) -> tuple[nn.Module, nn.Module]:
    """A layer that layouts decide in, and the same one left alone."""
    torch.manual_seed(0)
    module, alone = KINDS[kind]().eval(), KINDS[kind]().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    alone.load_state_dict(module.state_dict())
    assert share(module) and isinstance(module, Recurs)
    return module, alone


def laid_out(rows: Sequence[tuple[int, tuple[int, ...]]] = ROWS) -> SharedPrefix:
    return lay_out(
        [
            SharedRow(bare_prompt(size), tuple(np.zeros(n + 1, dtype=np.int64) for n in fed))
            for size, fed in rows
        ],
        CPU,
    )


def flat_input(layout: SharedPrefix) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, len(layout.ids), HIDDEN, generator=generator, requires_grad=True)


def one_by_one(layer: nn.Module, layout: SharedPrefix, hidden: Tensor) -> Tensor:
    """The reference: each response behind its own copy of its prompt, unpadded, without a cache."""
    out = torch.zeros_like(hidden[0])
    for prompt in layout.prompts:
        places = torch.from_numpy(prompt.places)
        out = out.index_copy(0, places, layer(hidden[:, places])[0])
    for run, owner in zip(layout.responses, layout.owner, strict=True):
        places = torch.from_numpy(run.places)
        before = torch.from_numpy(layout.prompts[owner].places)
        whole = layer(hidden[:, torch.cat([before, places])])[0]
        out = out.index_copy(0, places, whole[len(before) :])
    return out[None]


def compare(kind: str, rows: Sequence[tuple[int, tuple[int, ...]]] = ROWS) -> tuple[float, float]:
    """How far outputs are from the reference, and the gradients of all parameters and inputs."""
    shared, alone = layers(kind)
    layout = laid_out(rows)
    own, other = flat_input(layout), flat_input(layout)
    with active_layout(layout):
        found = shared(own)
    wanted = one_by_one(alone, layout, other)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    (found * weights).sum().backward()
    (wanted * weights).sum().backward()
    ours, theirs = (
        torch.cat([x.grad.flatten(), *(p.grad.flatten() for p in module.parameters())])  # type: ignore[union-attr]
        for x, module in ((own, shared), (other, alone))
    )
    return relative(found, wanted), relative(ours, theirs)


@every_kind
def test_rows_equal_their_responses_alone(kind: str) -> None:
    outputs, gradients = compare(kind)
    assert outputs < 1e-6 and gradients < 1e-5


@every_kind
@pytest.mark.parametrize("size", [1, 2, 3, 63, 64, 65])
def test_a_response_of_any_length_behind_a_prompt_of_any(kind: str, size: int) -> None:
    outputs, gradients = compare(kind, [(size, (1, size)), (64, (size, 2))])
    assert outputs < 1e-6 and gradients < 1e-5


def detached(memory: Memory) -> Memory:
    states = (s if s is None else s.detach() for s in memory._states)
    return Memory(*states)


def forgotten(memory: Memory) -> Memory:
    states = (s if s is None else torch.zeros_like(s) for s in memory._states)
    return Memory(*states)


def swapped(memory: Memory) -> Memory:
    states = (s if s is None else s.flip(0) for s in memory._states)
    return Memory(*states)


BROKEN: dict[str, tuple[Callable[[Memory], Memory], bool]] = {
    "a prompt that learns nothing from its responses": (detached, False),
    "responses that start from nothing": (forgotten, True),
    "responses of another prompt": (swapped, True),
}


@every_kind
@pytest.mark.parametrize("control", BROKEN)
def test_the_comparison_sees_what_is_broken(
    kind: str, control: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-probs alone would let the first of these pass."""
    broken, in_outputs = BROKEN[control]
    joined = Memory.joined
    monkeypatch.setattr(Memory, "joined", staticmethod(lambda parts: broken(joined(parts))))
    outputs, gradients = compare(kind)
    assert (outputs > 1e-3) == in_outputs
    assert gradients > 1e-3


@every_kind
def test_without_layouts_flat_rows_leak_through_a_layer(kind: str) -> None:
    shared, alone = layers(kind)
    layout = laid_out()
    hidden = flat_input(layout)
    assert torch.equal(shared(hidden), alone(hidden)), "outside of layouts it is the library's"
    assert relative(alone(hidden), one_by_one(alone, layout, hidden)) > 1e-3


@every_kind
@torch.no_grad()
def test_decoding_goes_on_as_training_rows_do(kind: str) -> None:
    """Token by token from two prefills, responses leaving on the way."""
    module, _ = layers(kind)
    layout = laid_out()
    hidden = flat_input(layout)
    with active_layout(layout):
        wanted = module(hidden)[0]
    prefill = Prefill([run.size for run in layout.prompts])
    # Decoding needs a layer of attention to have tables at all.
    keys = torch.zeros(sum(run.size for run in layout.prompts), 1, 4)
    for start, stop in ((0, 2), (2, len(ROWS))):
        sizes = [(size, ()) for size, _ in ROWS[start:stop]]
        part = prefill.part(laid_out(sizes), np.arange(start, stop))
        places = np.concatenate([run.places for run in layout.prompts[start:stop]])
        with active_layout(part):
            out = module(hidden[:, places])[0]
        part.attend(0, keys[: len(places)], keys[: len(places)], keys[: len(places)], 1.0)
        assert relative(out, wanted[places]) < 2e-6

    fed = np.array([run.size for run in layout.responses])
    decoding = Decoding(int(fed.max()))
    decoding.join(prefill, layout.owner)
    live = np.arange(len(fed))
    for at in range(fed.max()):
        stay = (fed[live] > at).nonzero()[0]
        if len(stay) < len(live):
            live = live[stay]
            decoding.keep(stay)
        now = [layout.responses[i].start + at for i in live]
        with active_layout(decoding):
            out = module(hidden[:, now])[0]
        torch.testing.assert_close(out, wanted[now], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lengths", [[2000, *[40] * 127], [5], [*range(1, 90)], [7, 0, 0, 7]])
def test_padding_is_a_quarter_at_most(lengths: list[int]) -> None:
    fed = [n for n in lengths if n]
    of_prompts: Any = laid_out([(n, (4, 4)) for n in fed]).recurrence
    of_responses: Any = laid_out([(9, (*lengths, 0))]).recurrence
    assert sum(part.size for part in of_prompts._firsts) <= SLACK * sum(fed)
    assert sum(part.size for part in of_responses._later) <= SLACK * max(sum(fed), 2 * len(fed))


def test_as_many_calls_as_any_process_makes_change_nothing() -> None:
    module, _ = layers("delta net")
    found, called = [], []
    for least in (0, 7):
        layout = laid_out([(5, (3, 2)), (40, (9, 1))])
        layout.recurrence.least = least
        hidden = flat_input(layout)
        handle = module.in_proj_z.register_forward_hook(lambda *a: called.append(1))
        with active_layout(layout):
            out = module(hidden)
        handle.remove()
        module.zero_grad()
        out.square().sum().backward()
        grads = [p.grad.clone() for p in module.parameters() if p.grad is not None]
        found.append([out.detach(), hidden.grad, *grads])
        if least:
            assert len(called) == layout.recurrence.calls + 7
        assert layout.recurrence.calls < 7
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_every_known_layer_exists_and_is_exchanged_once() -> None:
    known = {type(layers(kind)[1]).__name__ for kind in KINDS} | {"Qwen3_5MoeGatedDeltaNet"}
    newer = set() if "LFM3" in KINDS else {"Lfm3ShortConv"}
    assert known | newer == set(LAYERS)
    module, _ = layers("delta net")
    kind = type(module)
    assert share(module) and type(module) is kind
    assert not share(nn.Linear(2, 2))


@every_kind
def test_a_layer_is_left_as_it_was(kind: str) -> None:
    module, alone = layers(kind)
    leave(module)
    assert type(module) is type(alone)


def test_a_recurrence_without_responses_remembers_prompts_in_order() -> None:
    runs = [Run(0, 2), Run(2, 90), Run(90, 95)]
    recurrence = Recurrence(runs, [], np.zeros(0, dtype=np.int64), CPU)

    def mixer(hidden: Tensor, memory: Memory, mask: Tensor | None) -> Tensor:
        memory.update_conv_state(hidden.transpose(1, 2), 0, conv_kernel_size=2)
        return hidden

    hidden = torch.arange(95.0)[None, :, None]
    out, memory = recurrence.run(mixer, hidden)
    assert torch.equal(out, hidden)
    assert memory.conv_states[0] is not None
    assert memory.conv_states[0].flatten().tolist() == [1.0, 89.0, 94.0]

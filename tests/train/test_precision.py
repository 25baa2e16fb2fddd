"""Half precision trains: what a step adds up is float32, whatever the weights are held in."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmrl.backend import masters
from mmrl.backend.local import LocalBackend
from mmrl.backend.masters import join, round_at_random, split
from mmrl.config import CriticConfig, OptimizerConfig
from mmrl.errors import UserError
from mmrl.model_config import ModelConfig
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import load_policy
from mmrl.train.critic import Critic
from mmrl.types import Response, Sample, TrainSample
from tests.conftest import TINY

WIDTH = 96


def numbers(count: int) -> Tensor:
    """Float32 of every exponent, and all that is special about rounding."""
    bits = torch.randint(-(1 << 31), 1 << 31, (count,), generator=torch.Generator().manual_seed(0))
    drawn = bits.to(torch.int32).view(torch.float32)
    uppers = torch.arange(0, 1 << 16, 97, dtype=torch.int64)
    halfway = ((uppers << 16) + 0x8000).to(torch.int32).view(torch.float32)
    found = torch.cat([drawn, halfway, halfway.nextafter(torch.tensor(0.0)), -halfway])
    return found[found.isfinite() & (found.abs() < 3e38)]


def test_a_master_is_its_weight_and_sixteen_bits_more() -> None:
    values = numbers(200_000)
    weight, lower = split(values)
    assert weight.dtype == torch.bfloat16 and lower.dtype == torch.int16
    assert torch.equal(weight.view(torch.int16), values.to(torch.bfloat16).view(torch.int16))
    found = join(weight, lower)
    # Of a value halfway between two weights the last bit may be lost, and nothing else ever.
    off = found.view(torch.int32) - values.view(torch.int32)
    halfway = (values.view(torch.int32) & 0xFFFF) == 0x8000
    assert not off[~halfway].any()
    assert set(off[halfway].tolist()) <= {0, -1} and off[halfway].any()
    assert torch.equal(found.to(torch.bfloat16).view(torch.int16), weight.view(torch.int16))


def test_rounding_at_random_is_right_on_average() -> None:
    value = torch.tensor([0.1, -3.3, 1.0, 1e-20, 7.77]).repeat(40_000, 1)
    found = round_at_random(value, torch.Generator().manual_seed(0)).double()
    unit = (value[0].abs().log2().floor() - 7).exp2().double()
    assert torch.all((found - value).abs() < unit)
    # The standard error of the mean is below half a unit over the root of 40,000.
    assert torch.all((found.mean(0) - value[0]).abs() < 4 * unit / 2 / 200)
    assert torch.equal(found[:, 2], torch.ones(40_000, dtype=torch.float64))


def linear(dtype: torch.dtype, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    made = nn.Linear(WIDTH, WIDTH)
    with torch.no_grad():
        made.weight.normal_(std=0.02)
        made.bias.normal_(std=0.02)
    return made.to(torch.bfloat16).to(dtype)


def backend(model: nn.Module, **options: Any) -> LocalBackend:
    settings = {"learning_rate": 1e-6, "weight_decay": 0.01, **options}
    return LocalBackend(model, OptimizerConfig.model_validate(settings), total_updates=1)


def gradients(model: nn.Module, steps: int) -> Iterator[list[Tensor]]:
    """A steady direction and as much noise, the same for every dtype; exact in bfloat16."""
    generator = torch.Generator().manual_seed(1)
    shapes = [p.shape for p in model.parameters()]
    steady = [torch.randn(shape, generator=generator) for shape in shapes]
    for _ in range(steps):
        noise = [torch.randn(shape, generator=generator) for shape in shapes]
        pairs = zip(steady, noise, strict=True)
        yield [(1e-3 * (s + n)).to(torch.bfloat16).float() for s, n in pairs]


def train(model: nn.Module, owner: LocalBackend, steps: int, skip: int = 0) -> None:
    for index, found in enumerate(gradients(model, skip + steps)):
        if index < skip:
            continue
        # Each reaches the model in three micro-batches.
        for share in (0.5, 0.25, 0.25):
            parts = zip(model.parameters(), found, strict=True)
            owner.backward(torch.stack([(p * (share * g)).sum().float() for p, g in parts]).sum())
        owner.step()


def flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.detach().flatten().double() for tensor in tensors])


def held(model: nn.Module, owner: LocalBackend) -> Tensor:
    state = owner.state()[0]
    return flat(state.get(f"master.{name}", p) for name, p in model.named_parameters())


def cosine(one: Tensor, other: Tensor) -> float:
    return float(nn.functional.cosine_similarity(one, other, 0))


@pytest.mark.parametrize("moments", ["float32", "bfloat16"])
def test_a_hundred_steps_of_a_millionth_move_masters_as_float32(moments: str) -> None:
    start = flat(linear(torch.float32).parameters())
    exact = linear(torch.float32)
    train(exact, backend(exact), 100)
    wanted = flat(exact.parameters()) - start
    model = linear(torch.bfloat16)
    owner = backend(model, moments=moments)
    train(model, owner, 100)
    found = held(model, owner) - start
    assert cosine(found, wanted) > (0.9999 if moments == "float32" else 0.999)
    assert float(found.norm() / wanted.norm()) == pytest.approx(1.0, abs=2e-3)
    assert float((found != 0).double().mean()) > 0.99
    # The model has the masters' rounding, which is all that half precision can show of the move.
    for name, parameter in model.named_parameters():
        master = owner.state()[0][f"master.{name}"]
        assert master.dtype == torch.float32
        assert torch.equal(master.to(torch.bfloat16), parameter)


def test_moments_are_float32_and_decay() -> None:
    model = linear(torch.bfloat16)
    owner = backend(model)
    train(model, owner, 1)
    first = owner.state()[0]["exp_avg_sq.weight"].clone()
    for _ in range(200):
        owner.step()  # gradients of zero
    last = owner.state()[0]["exp_avg_sq.weight"]
    assert last.dtype == torch.float32
    torch.testing.assert_close(last, first * 0.999**200, rtol=1e-4, atol=0)


def test_small_moments_decay_on_average() -> None:
    model = linear(torch.bfloat16)
    owner = backend(model, moments="bfloat16")
    train(model, owner, 1)
    first = owner.state()[0]["exp_avg_sq.weight"].float()
    for _ in range(500):
        owner.step()
    last = owner.state()[0]["exp_avg_sq.weight"]
    assert last.dtype == torch.bfloat16
    assert float(last.float().mean() / first.mean()) == pytest.approx(0.999**500, rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_small_micro_batches_add_up_beside_a_large_one(dtype: torch.dtype) -> None:
    model = nn.Linear(4, 1, bias=False).to(dtype)
    owner = backend(model, max_grad_norm=1e9, weight_decay=0.0)
    for share in [1.0, *[2.0**-9] * 512]:  # each of which bfloat16 would lose beside the first
        owner.backward((model.weight * share).sum())
    # Adding up in float32 is exact here: four gradients of 1 + 512 / 512.
    assert owner.step() == pytest.approx(2.0 * 4**0.5, rel=1e-6)
    moment = owner.state()[0]["exp_avg.weight"]
    torch.testing.assert_close(moment, torch.full((1, 4), 0.2))


def test_half_precision_gradients_are_let_go_one_by_one() -> None:
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4))).to(torch.bfloat16)
    owner = backend(model)
    present = []

    def count(parameter: Tensor) -> None:
        present.append(sum(p.grad is not None for p in model.parameters()))

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(count)
    owner.backward(model(torch.ones(2, 8, dtype=torch.bfloat16)).sum())
    assert max(present) <= 1 and all(p.grad is None for p in model.parameters())
    owner.step()
    assert not owner._gradients


def test_gradients_that_somebody_else_left_are_used() -> None:
    one, other = linear(torch.bfloat16), linear(torch.bfloat16)
    first, second = backend(one), backend(other)
    train(one, first, 3)
    for found in gradients(other, 3):
        for parameter, gradient in zip(other.parameters(), found, strict=True):
            parameter.grad = gradient.to(torch.bfloat16)
        second.step()
    assert torch.equal(held(one, first), held(other, second))


def test_float32_is_torchs_own_adamw_bit_for_bit() -> None:
    model, twin = linear(torch.float32), linear(torch.float32)
    owner = backend(model, max_grad_norm=0.01)
    groups = [
        {"params": [twin.weight], "weight_decay": 0.01},
        {"params": [twin.bias], "weight_decay": 0.0},
    ]
    wanted = torch.optim.AdamW(groups, lr=1e-6, fused=True)
    for found in gradients(model, 5):
        for parameter, gradient in zip(twin.parameters(), found, strict=True):
            parameter.grad = gradient.clone()
        pairs = list(zip(model.parameters(), found, strict=True))
        owner.backward(torch.stack([(p * g).sum() for p, g in pairs]).sum())
        norm = nn.utils.clip_grad_norm_(twin.parameters(), 0.01)
        assert owner.step() == float(norm) > 0.01
        wanted.step()
    assert torch.equal(flat(model.parameters()), flat(twin.parameters()))
    assert not any(name.startswith("master.") for name in owner.state()[0])


def test_float32_parameters_of_a_model_in_half_precision_stay_as_they_are() -> None:
    mixed = nn.ModuleDict({"base": linear(torch.bfloat16), "adapter": linear(torch.float32, 1)})
    alone = linear(torch.float32, 1)
    mixed["base"].requires_grad_(False)
    one, other = backend(mixed), backend(alone)
    train(mixed["adapter"], one, 5)
    train(alone, other, 5)
    assert torch.equal(flat(mixed["adapter"].parameters()), flat(alone.parameters()))
    state = one.state()[0]
    assert torch.equal(state["master.adapter.weight"], mixed["adapter"].weight)
    assert state["exp_avg.adapter.weight"].dtype == torch.float32
    assert not any(".base." in name for name in state)


@pytest.mark.parametrize("moments", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_in_pieces_is_the_step(
    dtype: torch.dtype, moments: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = linear(dtype), linear(dtype)
    one, other = backend(whole, moments=moments), backend(cut, moments=moments)
    train(whole, one, 3)
    monkeypatch.setattr(masters, "PIECE_ELEMENTS", 7 * WIDTH)
    assert len(list(masters.pieces(cut.weight.shape))) == 14
    train(cut, other, 3)
    # Vectors of the kernel end elsewhere; how moments are rounded is drawn in another order.
    rounding = 1e-7 if moments == "float32" else 1e-6
    torch.testing.assert_close(held(whole, one), held(cut, other), rtol=0, atol=rounding)
    assert other.state()[0]["step.weight"] == 3


@pytest.mark.parametrize("moments", ["float32", "bfloat16"])
def test_a_step_after_a_resume_is_the_same_bit_for_bit(moments: str) -> None:
    whole = linear(torch.bfloat16)
    owner = backend(whole, moments=moments)
    train(whole, owner, 4)
    first = linear(torch.bfloat16)
    early = backend(first, moments=moments)
    train(first, early, 2)
    tensors, data = early.state()
    resumed = linear(torch.bfloat16, seed=5)  # weights too come out of the checkpoint's masters
    later = backend(resumed, moments=moments)
    later.load_state({name: tensor.clone() for name, tensor in tensors.items()}, data)
    train(resumed, later, 2, skip=2)
    ended, again = owner.state()[0], later.state()[0]
    assert ended.keys() == again.keys()
    assert all(torch.equal(ended[name], again[name]) for name in ended)
    assert torch.equal(flat(whole.parameters()), flat(resumed.parameters()))


@pytest.mark.parametrize("steps_before", [0, 3])
def test_masters_follow_weights_that_are_loaded_after_the_backend_was_built(
    steps_before: int,
) -> None:
    """The weights of a checkpoint without its optimiser: nothing of the old masters is left."""
    model, other = linear(torch.bfloat16), linear(torch.bfloat16, seed=9)
    owner = backend(model)
    train(model, owner, steps_before)
    model.load_state_dict(other.state_dict())
    assert torch.equal(held(model, owner), flat(other.parameters()))
    owner.step()
    moved = held(model, owner) - flat(other.parameters())
    assert float(moved.abs().max()) < 2e-6


def test_weights_that_are_written_past_torch_lose_half_a_unit_at_most() -> None:
    model, other = linear(torch.bfloat16), linear(torch.bfloat16, seed=9)
    owner = backend(model)
    train(model, owner, 3)
    for parameter, value in zip(model.parameters(), other.parameters(), strict=True):
        parameter.data = value.data.clone()
    wanted = flat(other.parameters())
    assert torch.all((held(model, owner) - wanted).abs() <= wanted.abs() * 2.0**-8)


def test_a_checkpoint_without_masters_starts_them_from_the_weights() -> None:
    model = linear(torch.bfloat16)
    owner = backend(model)
    train(model, owner, 3)
    tensors, data = owner.state()
    older = {n: t.to(torch.bfloat16) for n, t in tensors.items() if not n.startswith("master.")}
    owner.load_state(older, data)
    assert torch.equal(held(model, owner), flat(model.parameters()))
    assert owner.state()[0]["exp_avg.weight"].dtype == torch.float32


def test_a_checkpoint_of_half_precision_goes_on_in_float32_with_its_masters() -> None:
    model, exact = linear(torch.bfloat16), linear(torch.float32)
    owner, other = backend(model), backend(exact)
    train(model, owner, 3)
    other.load_state(*owner.state())
    assert torch.equal(flat(exact.parameters()), held(model, owner))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (1, 5)])
def test_parameters_of_any_shape_have_masters(shape: tuple[int, ...]) -> None:
    module = nn.Module()
    module.register_parameter("weight", nn.Parameter(torch.ones(shape, dtype=torch.bfloat16)))
    owner = backend(module, weight_decay=0.0)
    for _ in range(10):
        owner.backward(module.weight.sum())
        owner.step()
    found = owner.state()[0]["master.weight"]
    torch.testing.assert_close(found, torch.full(shape, 1 - 1e-5), rtol=0, atol=2e-7)


def test_a_transposed_parameter_is_stepped_as_its_copy() -> None:
    plain = linear(torch.bfloat16)
    turned = copy.deepcopy(plain)
    turned.weight = nn.Parameter(plain.weight.detach().t().contiguous().t())
    assert not turned.weight.is_contiguous()
    one, other = backend(plain), backend(turned)
    train(plain, one, 3)
    train(turned, other, 3)
    assert torch.equal(held(plain, one), held(turned, other))


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    model = linear(torch.bfloat16)
    owner = backend(model)
    train(model, owner, 2)
    before = held(model, owner)
    owner.backward((model.weight * float("inf")).sum())
    with pytest.raises(UserError, match="not finite"):
        owner.step()
    assert torch.equal(held(model, owner), before) and not owner._gradients


def test_state_lies_where_the_parameter_is() -> None:
    """On the meta device, which stands for any that is not the CPU: torch asks it of its kernel."""
    for dtype in (torch.float32, torch.bfloat16):
        model = nn.Linear(4, 4, device="meta", dtype=dtype)
        owner = backend(model)
        tensors = {
            f"{key}.{name}": torch.zeros(p.shape if key != "step" else ())
            for name, p in model.named_parameters()
            for key in ("step", "exp_avg", "exp_avg_sq")
        }
        owner.load_state(tensors, {"updates": 3})
        states = list(owner._optimizer.state.values())
        assert len(states) == 2
        assert all(t.device.type == "meta" for state in states for t in state.values())


def test_a_critic_in_half_precision_has_masters_and_resumes_bit_for_bit(
    encoder: Encoder, ask: Callable[..., Sample]
) -> None:
    prompt = encoder.prompt(ask((28, 28, 0), "how many?"))
    response = Response(np.array([150, 200, 250]), np.zeros(3), "", "stop")
    ones = np.ones(3)
    sample = TrainSample(
        prompt, response, ones, ones > 0, group=0, returns=2 * ones, values=np.zeros(3)
    )

    def critic(steps: int) -> Critic:
        half = load_policy(ModelConfig(path=TINY, dtype="bfloat16"), torch.device("cpu"))
        made = Critic(half, CriticConfig(learning_rate=1e-6), 10_000)
        for _ in range(steps):
            made.update([sample])
        return made

    whole, early, later = critic(4), critic(2), critic(0)
    tensors, data = early.state()
    later.load_state({name: tensor.clone() for name, tensor in tensors.items()}, data)
    for _ in range(2):
        later.update([sample])
    ended, again = whole.state()[0], later.state()[0]
    assert ended.keys() == again.keys()
    assert all(torch.equal(ended[name], again[name]) for name in ended)
    trunk = [n.removeprefix("weight.") for n in ended if n.startswith("weight.trunk.")]
    first = critic(0).state()[0]
    moved = torch.cat(
        [(ended[f"optimizer.master.{n}"] - first[f"weight.{n}"].float()).flatten() for n in trunk]
    )
    assert 1e-7 < float(moved.abs().mean()) < 5e-6
    for name in trunk:
        master = ended[f"optimizer.master.{name}"]
        assert torch.equal(master.to(torch.bfloat16), ended[f"weight.{name}"])


def test_float16_is_refused_in_a_line() -> None:
    with pytest.raises(UserError, match="train in bfloat16 or float32") as error:
        backend(nn.Linear(4, 4).to(torch.float16))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("dtype", "moments", "stays"),
    [
        (torch.float32, "float32", 12),
        (torch.float32, "bfloat16", 8),
        (torch.bfloat16, "float32", 12),
        (torch.bfloat16, "bfloat16", 8),
    ],
)
def test_bytes_a_parameter(dtype: torch.dtype, moments: str, stays: int) -> None:
    model = nn.Linear(64, 64, bias=False).to(dtype)
    owner = backend(model, moments=moments)
    owner.backward(model.weight.sum())
    owner.step()
    gc.collect()
    optimizer = owner._optimizer
    kept = [model.weight, *optimizer.state[model.weight].values()]
    kept += [master._lower for master in optimizer.masters.values()]
    size = sum(t.numel() * t.element_size() for t in kept if t.ndim)
    assert size == stays * 64 * 64
    assert not np.any([p.grad is not None for p in model.parameters()])

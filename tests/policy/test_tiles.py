"""Tiles see what a dense mask would let them see, whatever the lengths, and pad and hold little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mmrl.policy import flash, tiled
from mmrl.policy.shared_prefix import SharedPrefix, SharedRow, lay_out
from mmrl.policy.tiles import batches
from mmrl.types import Prompt, Sample

CPU = torch.device("cpu")
SCALE = 0.4

Lengths = Sequence[tuple[int, Sequence[int]]]
"""Prompt tokens and response tokens of each row."""

MIXES: dict[str, Lengths] = {
    "equal": [(6, [5, 5, 5]), (6, [5, 5, 5])],
    "long tail": [(5, [90, 4, 4, 4, 3, 5]), (7, [4, 3])],
    "group size 1": [(9, [3]), (2, [11]), (4, [1]), (6, [60])],
    "one huge prompt": [(120, [3, 9]), (3, [5]), (4, [8, 1, 2])],
    "one token and none": [(4, [1, 0, 1]), (1, [1]), (3, [])],
    "prompts alone": [(8, []), (3, [])],
}


def bare(length: int, blocks: Sequence[int] | None = None, slide_only: bool = False) -> Prompt:
    ids = np.zeros(length, dtype=np.int64)
    sample = Sample("bare", "test", (), gold=None)
    numbers = None if blocks is None else np.array(blocks, dtype=np.int64)
    return Prompt(
        sample, (), ids, ids[None], length, (), "unit", blocks=numbers, blocks_slide_only=slide_only
    )


def laid_out(lengths: Lengths, with_blocks: bool = False, slide_only: bool = False) -> SharedPrefix:
    rows = [
        SharedRow(
            bare(size, blocks_of(size) if with_blocks else None, slide_only),
            tuple(np.zeros(n, dtype=np.int64) for n in answers),
        )
        for size, answers in lengths
    ]
    return lay_out(rows, CPU)


def blocks_of(size: int) -> list[int]:
    """One token that is no block, then blocks of three, with a gap after each other one."""
    return [
        0 if (i - 1) % 7 == 6 or i == 0 else 1 + (i - 1) // 7 * 2 + (i - 1) % 7 // 3
        for i in range(size)
    ]


def seen(lengths: Lengths, window: int | None, with_blocks: bool, slide_only: bool) -> Tensor:
    """The dense mask [N, N] of the flat tokens, one token at a time from the definition."""
    layout = laid_out(lengths)
    tokens = [(0, 0, 0, 0)] * len(layout.ids)  # row, response (0: the prompt), place, block
    for row, (size, answers) in enumerate(lengths):
        numbers = blocks_of(size) if with_blocks else [0] * size
        for place, number in enumerate(numbers):
            tokens[layout.prompts[row].start + place] = row, 0, place, number
        own = [
            run for run, owner in zip(layout.responses, layout.owner, strict=True) if owner == row
        ]
        for which, (run, n) in enumerate(zip(own, answers, strict=True)):
            assert run.size == max(n - 1, 0)
            for place in range(run.size):
                tokens[run.start + place] = row, 1 + which, size + place, 0
    both_ways = with_blocks and not (slide_only and window is None)
    mask = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
    for i, (row, which, place, block) in enumerate(tokens):
        for j, (other_row, other, other_place, other_block) in enumerate(tokens):
            if row != other_row or other not in (0, which):
                continue
            past = other_place <= place and (window is None or place - other_place < window)
            within = both_ways and block > 0 and block == other_block and place < other_place
            mask[i, j] = past or within
    return mask


def inputs(count: int, heads: tuple[int, int], dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    own, shared = heads
    return [torch.randn(count, h, 8, dtype=dtype) for h in (own, shared, shared, own)]


def attended(
    attend: Any, tensors: Sequence[Tensor], dtype: torch.dtype
) -> tuple[Tensor, list[Tensor]]:
    """The output, and gradients of query, key and value, given the output's."""
    *leaves, grad = (x.to(dtype) for x in tensors)
    leaves = [x.clone().requires_grad_() for x in leaves]
    out = attend(*leaves)
    out.backward(grad)
    return out.detach(), [x.grad for x in leaves]


def dense(mask: Tensor) -> Any:
    """Attention by the definition, under a dense mask."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        each = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(each, 1) for x in (key, value))
        scores = torch.einsum("nhd,mhd->hnm", query, key) * SCALE
        weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
        return torch.einsum("hnm,mhd->nhd", weights, value)

    return attend


def error(found: Tensor, wanted: Tensor, whole: float = 0.0) -> float:
    """Relative to the wanted norm, or to a fifth of that of the `whole` where it is less.

    A token that sees itself alone has gradients of queries and keys that are 0: terms of the
    others' size cancel, and leave their rounding.
    """
    size = max(float(wanted.double().norm()), whole / 5)
    return float((found.double() - wanted.double()).norm()) / size


def compare(
    lengths: Lengths,
    window: int | None,
    blocks: str,
    dtype: torch.dtype,
    bound: float,
    heads: tuple[int, int] = (6, 2),
) -> None:
    layout = laid_out(lengths, blocks != "none", blocks == "sliding")
    mask = seen(lengths, window, blocks != "none", blocks == "sliding")
    tensors = [x.to(dtype) for x in inputs(len(layout.ids), heads, torch.float64)]

    def by_tiles(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return layout.attend(0, query, key, value, SCALE, window)

    wanted, wanted_grads = attended(dense(mask), tensors, torch.float64)
    out, grads = attended(by_tiles, tensors, dtype)
    assert out.dtype == dtype
    whole = max(float(each.norm()) for each in (wanted, *wanted_grads))
    for found, expected in zip([out, *grads], [wanted, *wanted_grads], strict=True):
        assert torch.isfinite(found).all()
        assert error(found, expected, whole) < bound


@pytest.mark.parametrize("lengths", MIXES.values(), ids=MIXES.keys())
@pytest.mark.parametrize("window", [None, 1, 2, 4, 7, 30, 500])
@pytest.mark.parametrize("blocks", ["none", "everywhere", "sliding"])
def test_tiles_equal_a_dense_mask(lengths: Lengths, window: int | None, blocks: str) -> None:
    """Float32 against the definition in float64: outputs and gradients."""
    compare(lengths, window, blocks, torch.float32, 1e-6)


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.bfloat16, 8e-3)])
def test_tiles_keep_their_types_precision(
    window: int | None, dtype: torch.dtype, bound: float
) -> None:
    """A value of bfloat16 has 8 bits: rounding alone is up to 4e-3 of it."""
    for lengths in MIXES.values():
        compare(lengths, window, "everywhere", dtype, bound)


@pytest.mark.parametrize("heads", [(4, 4), (4, 1), (6, 3)])
def test_heads_share_keys(heads: tuple[int, int]) -> None:
    compare(MIXES["long tail"], None, "none", torch.float32, 1e-6, heads)
    compare(MIXES["long tail"], 6, "none", torch.float32, 1e-6, heads)


@pytest.mark.parametrize("threads", [2, 3, 16])
@pytest.mark.parametrize("heads", [(4, 1), (6, 2), (7, 1), (12, 2)])
def test_every_thread_has_heads_of_keys(
    heads: tuple[int, int], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One tile of few heads goes over several threads, and to the same gradients."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    given, kernel = [], flash._cpu_backward

    def noted(grad: Tensor, query: Tensor, key: Tensor, *rest: Any, **more: Any) -> Any:
        given.append((len(key) * key.shape[1], query.shape[1]))
        return kernel(grad, query, key, *rest, **more)

    monkeypatch.setattr(flash, "_cpu_backward", noted)
    compare(MIXES["long tail"], None, "none", torch.float32, 1e-6, heads)
    compare(MIXES["long tail"], None, "none", torch.bfloat16, 8e-3, heads)
    assert all(tasks >= min(threads, queries) for tasks, queries in given)


mixes = st.lists(
    st.tuples(st.integers(1, 14), st.lists(st.integers(0, 16), max_size=4)), min_size=1, max_size=4
)


@settings(max_examples=40, deadline=None)
@given(mixes, st.one_of(st.none(), st.integers(1, 20)), st.sampled_from(["none", "everywhere"]))
def test_any_mix_equals_a_dense_mask(lengths: Lengths, window: int | None, blocks: str) -> None:
    compare(lengths, window, blocks, torch.float32, 1e-6)


@pytest.mark.parametrize("window", [None, 4])
def test_matrix_products_equal_the_fused_kernel(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of devices that have no fused kernel, some queries at a time."""

    def unfused(name: str) -> Any:
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError(f"{name} is not to be called")

        return refuse

    monkeypatch.setattr(flash, "_fused_on_cpu", lambda query: False)
    monkeypatch.setattr(flash, "_cpu", unfused("forward"))
    monkeypatch.setattr(flash, "_cpu_backward", unfused("backward"))
    for scores in (1, 100, 2**24):
        monkeypatch.setattr(flash, "SCORES", scores)
        compare(MIXES["long tail"], window, "everywhere", torch.float32, 1e-6)
    compare(MIXES["long tail"], window, "everywhere", torch.bfloat16, 1e-2)


# ---------------------------------------------------------------------- what is padded and held

long_mixes = st.lists(
    st.tuples(st.integers(1, 3000), st.lists(st.integers(0, 4000), max_size=8)),
    min_size=1,
    max_size=16,
)


@settings(max_examples=200, deadline=None)
@given(long_mixes, st.one_of(st.none(), st.integers(16, 5000)))
def test_padding_is_bounded(lengths: Lengths, window: int | None) -> None:
    layout = laid_out(lengths)
    plan, tokens = layout.plan(window), len(layout.ids)
    runs = sorted((run.start, run.stop) for run in (*layout.prompts, *layout.responses) if run.size)
    assert [at for run in runs for at in range(*run)] == list(range(tokens))
    assert sum(batch.real.count for batch in plan.first) == tokens
    assert sum(batch.padded for batch in plan.first) <= 1.3 * tokens
    for part in plan.further:
        assert part.padded <= 1.3 * part.real.count


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=200), st.integers(0, 500))
def test_batches_are_complete_and_bounded(sizes: list[int], spare: int) -> None:
    found = batches(sizes, slack=1.2, spare=spare)
    assert sorted(i for batch in found for i in batch) == list(range(len(sizes)))
    for batch in found:
        members = [sizes[i] for i in batch]
        assert len(members) * max(members) <= 1.2 * sum(members) + spare or len(members) == 1


def held(layout: SharedPrefix, window: int | None) -> int:
    """Bytes of all tensors of a layout and of its plan for a kind of layer."""
    storages: dict[int, int] = {}
    todo: list[Any] = [layout.plan(window), *vars(layout).values()]
    visited = set()
    while todo:
        one = todo.pop()
        if id(one) in visited:
            continue
        visited.add(id(one))
        if isinstance(one, Tensor):
            storages[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        elif isinstance(one, (list, tuple)):
            todo += one
        elif isinstance(one, dict):
            todo += [*one.keys(), *one.values()]
        elif hasattr(one, "__dict__"):
            todo += vars(one).values()
    return sum(storages.values())


TAIL: Lengths = [(100, [2000, *[40] * 7]), *[(100, [40] * 8)] * 15]


@pytest.mark.parametrize("window", [None, 16, 512, 4096])
@pytest.mark.parametrize(
    "lengths",
    [
        TAIL,
        [(100, [250] * 8)] * 16,
        [(4000, [40]), *[(50, [40])] * 100],
        [(2000, [300] * 64)],
    ],
    ids=["long tail", "equal", "one huge prompt", "one large group"],
)
def test_what_a_layout_holds_is_linear_in_its_tokens(lengths: Lengths, window: int | None) -> None:
    layout = laid_out(lengths)
    # Ids, positions, predictors and targets, and a token's places in its tiles: numbers of 8 bytes.
    assert held(layout, window) <= 12 * 8 * len(layout.ids)


class Largest(TorchDispatchMode):
    """Remembers the most elements of any tensor that an operation made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (list, tuple)) else [out]:
            if isinstance(one, Tensor):
                Largest.elements = max(Largest.elements, one.numel())
        return out


@pytest.mark.parametrize("window", [None, 64])
def test_no_tensor_of_responses_by_prompt(window: int | None) -> None:
    lengths: Lengths = [(300, [500, *[20] * 30]), *[(40, [20] * 4)] * 6]
    layout = laid_out(lengths)
    tensors = inputs(len(layout.ids), (4, 2), torch.float32)
    layout.plan(window)
    Largest.elements = 0
    with Largest():
        attended(lambda q, k, v: layout.attend(0, q, k, v, SCALE, window), tensors, torch.float32)
    # A query's numbers, padded; a dense mask would have 55 responses x 499 x 799 elements.
    assert tensors[0].numel() <= Largest.elements <= 1.3 * tensors[0].numel()


@pytest.mark.parametrize("window", [None, 16])
def test_the_kernels_of_cuda_take_what_they_are_given(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By shapes and types alone: no GPU computes here."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    calls = []
    for name in ("_cuda", "_cuda_backward"):
        kernel = getattr(flash, name)

        def counted(*args: Any, kernel: Any = kernel, **options: Any) -> Any:
            calls.append(kernel)
            return kernel(*args, **options)

        monkeypatch.setattr(flash, name, counted)
    with FakeTensorMode(), torch.no_grad():
        rows = [SharedRow(bare(n), tuple(np.zeros(m, dtype=np.int64) for m in a)) for n, a in TAIL]
        layout = lay_out(rows, torch.device("cuda"))
        query, key, value = (
            torch.randn(len(layout.ids), h, 64, dtype=torch.bfloat16, device="cuda")
            for h in (4, 2, 2)
        )
        # Not by autograd, whose engine wants the device itself.
        context = Context()
        out = tiled._Tiled.forward(context, query, key, value, SCALE, layout.plan(window))
        found = tiled._Tiled.backward(context, out)[:3]
        for gradient, leaf in zip(found, (query, key, value), strict=True):
            assert gradient.shape == leaf.shape and gradient.dtype == torch.bfloat16
    assert out.shape == query.shape and out.dtype == torch.bfloat16
    assert len(calls) % 2 == 0 and calls


class Context:
    """What autograd hands to a function, without autograd."""

    saved_tensors: tuple[Tensor, ...]
    scale: float
    plan: Any

    def save_for_backward(self, *tensors: Tensor) -> None:
        self.saved_tensors = tensors

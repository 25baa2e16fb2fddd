"""Linears by oneDNN: the same products and gradients, and no weight that is out of date."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import weakref

import pytest
import torch
from torch import Tensor, nn

from mmrl.policy import linears
from mmrl.policy.shared_prefix import SharedRow
from tests.families import cases as family_cases
from tests.families import tiny

pytestmark = pytest.mark.skipif(not linears._has_operators(), reason="torch has no such operators")

SHAPES = [(1, 8, 5), (3, 64, 33), (150, 96, 64), (700, 40, 129)]


def exchanged(inner: int, outer: int, bias: bool = True) -> nn.Module:
    torch.manual_seed(inner)
    model = nn.Sequential(nn.Linear(inner, outer, bias))
    assert linears.exchange(model) == 1
    return model


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows, inner, outer", SHAPES)
def test_products_and_gradients_are_those_of_float64(
    rows: int, inner: int, outer: int, bias: bool
) -> None:
    model = exchanged(inner, outer, bias)
    exact = nn.Linear(inner, outer, bias).double()
    exact.load_state_dict({k.removeprefix("0."): v.double() for k, v in model.state_dict().items()})
    # What a layer is given is often a view: here every other column, two batch axes.
    wide = torch.randn(2, rows, 2 * inner)
    given, wanted = wide[..., ::2].requires_grad_(), wide[..., ::2].double().requires_grad_()
    pull = torch.randn(2, outer, rows).transpose(1, 2)
    found, expected = model(given), exact(wanted)
    found.backward(pull)
    expected.backward(pull.double())
    assert found.shape == expected.shape
    assert relative(found.detach(), expected.detach()) < 1e-6
    assert given.grad is not None and wanted.grad is not None
    assert relative(given.grad, wanted.grad) < 1e-6
    for own, other in zip(model.parameters(), exact.parameters(), strict=True):
        assert own.grad is not None and other.grad is not None
        assert relative(own.grad, other.grad) < 1e-6


CONVOLUTIONS = {
    "a clip's patches": (
        nn.Conv3d(3, 24, (2, 14, 14), (2, 14, 14), bias=False),
        (50, 3, 2, 14, 14),
    ),
    "with a bias": (nn.Conv2d(3, 24, 14, 14), (50, 3, 14, 14)),
    "a picture whole": (nn.Conv2d(3, 24, 14, 14), (2, 3, 56, 42)),
    "padded": (nn.Conv2d(3, 24, 14, 14, padding=2), (5, 3, 14, 14)),
    "in groups": (nn.Conv2d(4, 24, 6, groups=2), (5, 4, 6, 6)),
    "valid": (nn.Conv2d(4, 24, 6, padding="valid"), (5, 4, 6, 6)),
}


@pytest.mark.parametrize("which", CONVOLUTIONS)
def test_a_convolution_over_one_patch_is_a_product(
    which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, shape = CONVOLUTIONS[which]
    model, exact = nn.Sequential(copy.deepcopy(layer)), copy.deepcopy(layer).double()
    linears.exchange(model)
    called: list[int] = []
    product = linears._product
    monkeypatch.setattr(linears, "_product", lambda *a: called.append(1) or product(*a))
    given, wanted = torch.randn(shape, requires_grad=True), None
    wanted = given.detach().double().requires_grad_()
    found, expected = model(given), exact(wanted)
    pull = torch.randn(found.shape)
    found.backward(pull)
    expected.backward(pull.double())
    assert found.shape == expected.shape and relative(found.detach(), expected.detach()) < 1e-6
    assert given.grad is not None and wanted.grad is not None
    assert relative(given.grad, wanted.grad) < 1e-6
    for own, other in zip(model.parameters(), exact.parameters(), strict=True):
        assert own.grad is not None and other.grad is not None
        assert own.grad.shape == own.shape and relative(own.grad, other.grad) < 1e-6
    assert bool(called) == (which in ("a clip's patches", "with a bias", "valid"))


def test_frozen_weights_pass_gradients_on_and_get_none() -> None:
    model = exchanged(16, 8).requires_grad_(False)
    rows = torch.randn(5, 16, requires_grad=True)
    model(rows).sum().backward()
    assert rows.grad is not None
    torch.testing.assert_close(rows.grad[0], model[0].weight.sum(0))
    assert all(p.grad is None for p in model.parameters())


def test_no_rows_and_other_dtypes_are_torchs_own() -> None:
    model = exchanged(16, 8)
    assert model(torch.empty(1, 0, 16)).shape == (1, 0, 8)
    assert model.double()(torch.ones(2, 16, dtype=torch.float64)).dtype == torch.float64
    half = nn.Linear(16, 8, dtype=torch.bfloat16)
    assert linears.exchange(half) == 0


def products(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The products that are made from now on: whether by packed weights."""
    made: list[bool] = []
    product = linears._product

    def counted(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        made.append(weight.is_mkldnn)
        return product(rows, weight, bias)

    monkeypatch.setattr(linears, "_product", counted)
    return made


@pytest.mark.parametrize("rows", [1, 32, linears.PACKED_ROWS, linears.PACKED_ROWS + 1])
def test_packed_weights_give_the_same_products(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = exchanged(96, 80), torch.randn(rows, 96)
    plain = model(given).detach()
    made = products(monkeypatch)
    with torch.inference_mode(), linears.decoding(model):
        found = [model(given) for _ in range(3)]
    assert made == [False, *[rows <= linears.PACKED_ROWS] * 2]
    assert all(relative(each, plain.double()) < 1e-6 for each in found)


def test_packed_weights_do_not_depend_on_what_came_first() -> None:
    model, given = exchanged(96, 80), torch.randn(64, 96)
    found = []
    for first in (1, 17, 128):
        with torch.inference_mode(), linears.decoding(model):
            model(torch.randn(first, 96))
            found.append(model(given))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


class Attends(nn.Module):
    """Three linears of one input, one without a bias, one of their sum, which a fifth takes too."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"q": (64, True), "k": (16, True), "g": (48, False), "o": (96, True)}
        for name, (outer, bias) in sizes.items():
            self.add_module(name, nn.Linear(96 if name != "o" else 64, outer, bias))
        self.last = nn.Linear(96, 8)
        self.apart = self.twice = False

    def forward(self, rows: Tensor) -> list[Tensor]:
        also = rows.clone() if self.apart else rows
        found = [self.q(rows), self.k(also), self.g(rows)]
        found.append(self.o(found[0]))
        return [*found, *(self.last(each) for each in [found[-1], rows][: 1 + self.twice])]


@pytest.mark.parametrize("change", ["", "apart", "twice"])
def test_linears_of_the_same_rows_are_one_product(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a later pass gives them their rows; ragged numbers of rows, batch axes, views."""
    torch.manual_seed(0)
    model = Attends()
    linears.exchange(model)
    exact = copy.deepcopy(model).double()
    made = products(monkeypatch)
    with torch.inference_mode(), linears.decoding(model):
        for number, rows in enumerate([(1, 5), (7,), (2, 3), (1, 64), (9,)]):
            setattr(model, change or "apart", bool(change) and number > 1)
            setattr(exact, change or "apart", bool(change) and number > 1)
            given, before = torch.randn(*rows, 192)[..., ::2], len(made)
            found, wanted = model(given), exact(given.double())
            for own, other in zip(found, wanted, strict=True):
                assert own.shape == other.shape and relative(own, other) < 1e-6
            packed = made[before:]
            # Each alone at first; then q and k are one, unless they are given different rows.
            expected = [False] * 5 if not number else [True] * (4 + (bool(change) and number > 1))
            assert packed == expected


def test_rows_are_let_go_of_once_all_have_taken_theirs() -> None:
    model = Attends()
    linears.exchange(model)
    with torch.inference_mode(), linears.decoding(model):
        for _ in range(3):
            given = torch.randn(4, 96)
            model(given)
        seen = weakref.ref(given)
        del given
        assert seen() is None


def test_weights_that_changed_are_packed_anew() -> None:
    model, given = exchanged(32, 8), torch.randn(4, 32)
    with torch.inference_mode(), linears.decoding(model):
        model(given)
    model[0].weight.data.mul_(2)  # as backends write them: torch counts no new version
    with torch.inference_mode(), linears.decoding(model):
        found = model(given)
    torch.testing.assert_close(found, nn.functional.linear(given, *model[0].parameters()).detach())


def test_nothing_of_it_is_copied_or_saved() -> None:
    model = exchanged(32, 8)
    with torch.inference_mode(), linears.decoding(model):
        model(torch.randn(4, 32))
    assert set(model.state_dict()) == {"0.weight", "0.bias"}
    other = copy.deepcopy(model)
    assert type(other[0]) is linears.OneDNNLinear and other[0].packed is None
    other[0].weight.data.zero_()
    assert model[0].weight.abs().sum() > 0


def test_the_rule_asks_the_processor_and_the_operators(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("proc") / "cpuinfo"
    monkeypatch.setattr(linears, "CPUINFO", file)

    def rule(text: str | None) -> bool:
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)
        linears.onednn_is_faster.cache_clear()
        return linears.onednn_is_faster()

    assert rule("vendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\n")
    assert not rule("vendor_id\t: GenuineIntel\n")
    assert not rule(None)
    monkeypatch.setattr(linears, "_has_operators", lambda: False)
    assert not rule("vendor_id\t: AuthenticAMD\n")
    linears.onednn_is_faster.cache_clear()


@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3", "internvl"])
def test_a_policy_by_onednn_is_the_plain_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log-probs and all gradients together, of a row that shares its prompt."""
    monkeypatch.setattr(linears, "onednn_is_faster", lambda: True)
    made, reference = family_cases.policy(name), tiny.build(name)[0]
    case = family_cases.cases(tiny.TINY[name].kinds)["image"]
    row = SharedRow(family_cases.ask(made, case), family_cases.responses(0, (5, 2, 9)))
    assert linears.uses_onednn(made.model)
    found = family_cases.shared(made, [row])
    found.sum().backward()
    whole = family_cases.processed(made, case)
    wanted = family_cases.plain(reference, whole, row.prompt, row.responses, made.banned)
    wanted.sum().backward()
    assert relative(found.detach(), wanted.detach().double()) < 1e-5
    moved = family_cases.all_gradients(made.model, reference)
    assert relative(moved, family_cases.all_gradients(reference, reference).double()) < 1e-5


MANY_SHAPES = """
import torch
from mmrl.policy import linears  # noqa: F401  # bounds the caches

def held():
    line = next(l for l in open("/proc/self/status") if l.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

torch.set_num_threads(1)
weight = torch.randn(512, 512)
for rows in range(1, 801):
    torch.ops.mkldnn._linear_pointwise(torch.ones(rows, 512), weight, None, "none", [], "")
    if rows == 300:
        before = held()
print(held() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_products_of_many_shapes_are_not_all_kept() -> None:
    """500 shapes more hold 380 MiB where all are kept, 90 to 175 where the caches are bounded."""
    bare = {k: v for k, v in os.environ.items() if not k.endswith("CACHE_CAPACITY")}
    command = [sys.executable, "-c", MANY_SHAPES]
    done = subprocess.run(command, capture_output=True, text=True, env=bare)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 250

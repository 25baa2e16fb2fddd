"""Do steps of 1e-6 survive in bfloat16? Ways to hold weights and moments, against float32.

    python tools/small_steps.py

A matrix of 512 x 512 (standard deviation 0.02) gets gradients that do not depend on it, half of
their variance a steady direction; after a hundred steps they are a tenth as large, as they become
in training. Prints a Markdown table: the cosine of the matrix's move with float32's, as held and as
the model has it (in bfloat16), the length of the last move over that of float32's, and bytes a
parameter between two steps.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmrl.backend.local import LocalBackend
from mmrl.backend.masters import round_at_random
from mmrl.config import OptimizerConfig

SIDE = 512
BETAS, EPS = (0.9, 0.999), 1e-8
FALL = 100  # steps until gradients become small

Rounding = Callable[[Tensor], Tensor]


def nearest(value: Tensor) -> Tensor:
    return value.to(torch.bfloat16)


def at_random() -> Rounding:
    generator = torch.Generator().manual_seed(7)
    return lambda value: round_at_random(value, generator)


class Shipped:
    """The local backend, in either dtype and with either kind of moments."""

    def __init__(self, start: Tensor, rate: float, **options: str) -> None:
        self._model = nn.Linear(SIDE, SIDE, bias=False, dtype=start.dtype)
        self._model.load_state_dict({"weight": start})
        config = OptimizerConfig(learning_rate=rate, max_grad_norm=1e9, **options)
        self._backend = LocalBackend(self._model, config, 1)

    def step(self, gradient: Tensor) -> None:
        self._model.weight.grad = gradient.to(self._model.weight.dtype)
        self._backend.step()

    def held(self) -> Tensor:
        return self._backend.state()[0].get("master.weight", self.seen())

    def seen(self) -> Tensor:
        return self._model.weight.detach().float()


class Rounded:
    """Weights in bfloat16, each step rounded; what it lost is kept in `lost`, if at all (Kahan)."""

    def __init__(
        self, start: Tensor, rate: float, weights: Rounding, moments: Rounding, kahan: bool = False
    ) -> None:
        self._weight, self._rate = start.clone(), rate
        self._round, self._keep = weights, moments
        self._lost = torch.zeros_like(start) if kahan else None
        self._mean = self._square = moments(torch.zeros(start.shape))
        self._steps = 0

    def step(self, gradient: Tensor) -> None:
        self._steps += 1
        grad = nearest(gradient).float()
        mean = BETAS[0] * self._mean.float() + (1 - BETAS[0]) * grad
        square = BETAS[1] * self._square.float() + (1 - BETAS[1]) * grad.square()
        self._mean, self._square = self._keep(mean), self._keep(square)
        first, second = (1 - beta**self._steps for beta in BETAS)
        step = -self._rate * (mean / first) / ((square / second).sqrt() + EPS)
        if self._lost is None:
            self._weight = self._round(self._weight.float() + step)
            return
        step = step + self._lost.float()
        moved = self._round(self._weight.float() + step)
        self._lost = nearest(step - (moved.float() - self._weight.float()))
        self._weight = moved

    def held(self) -> Tensor:
        return self.seen() if self._lost is None else self.seen() + self._lost.float()

    def seen(self) -> Tensor:
        return self._weight.float()


def same(value: Tensor) -> Tensor:
    return value


@dataclass(frozen=True)
class Way:
    """A way to hold a parameter: bytes between two steps, gradients left out."""

    weights: str
    moments: str
    bytes: int
    make: Callable[[Tensor, float], Shipped | Rounded]


WAYS = (
    Way(
        "bfloat16, to the nearest",
        "bfloat16, to the nearest",
        6,
        lambda s, r: Rounded(s, r, nearest, nearest),
    ),
    Way(
        "bfloat16, at random",
        "bfloat16, at random",
        6,
        lambda s, r: Rounded(s, r, at_random(), at_random()),
    ),
    Way("bfloat16, at random", "float32", 10, lambda s, r: Rounded(s, r, at_random(), same)),
    Way(
        "bfloat16 and Kahan's rest",
        "bfloat16, to the nearest",
        8,
        lambda s, r: Rounded(s, r, nearest, nearest, kahan=True),
    ),
    Way(
        "bfloat16 and Kahan's rest",
        "bfloat16, at random",
        8,
        lambda s, r: Rounded(s, r, nearest, at_random(), kahan=True),
    ),
    Way(
        "**masters**", "**bfloat16, at random**", 8, lambda s, r: Shipped(s, r, moments="bfloat16")
    ),
    Way("**masters**", "**float32**", 12, Shipped),
)


def gradients(seed: int, signal: float) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    steady = signal**0.5 * torch.randn(SIDE, SIDE, generator=generator)
    for number in itertools.count():
        noise = torch.randn(SIDE, SIDE, generator=generator)
        yield (steady + (1 - signal) ** 0.5 * noise) * (1e-3 if number < FALL else 1e-4)


def cosine(one: Tensor, other: Tensor) -> float:
    one, other = one.double().flatten(), other.double().flatten()
    length = float(one.norm() * other.norm())
    return float(one @ other) / length if length else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 100, 1000])
    parser.add_argument("--rate", type=float, default=1e-6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", type=float, default=0.5, help="steady share of the variance")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    start = (0.02 * torch.randn(SIDE, SIDE)).to(torch.bfloat16)
    exact = Shipped(start.float(), args.rate)
    made = [way.make(start, args.rate) for way in WAYS]
    found: list[list[str]] = [[] for _ in WAYS]
    for number, gradient in enumerate(gradients(args.seed, args.signal), start=1):
        for each in (exact, *made):
            each.step(gradient)
        if number in args.steps:
            wanted = exact.seen() - start.float()
            for cells, each in zip(found, made, strict=True):
                moves = [each.held() - start.float(), each.seen() - start.float()]
                cells += [f"{cosine(move, wanted):.3f}" for move in moves]
                if number == max(args.steps):
                    cells.append(f"{float(moves[0].norm() / wanted.norm()):.2f}")
        if number == max(args.steps):
            break
    heads = [f"{kind}, {n} steps" for n in args.steps for kind in ("held", "model's")]
    heads.append("length")
    print(f"| weights | moments | bytes | {' | '.join(heads)} |")
    print("|" + "---|" * (3 + len(heads)))
    for way, cells in zip(WAYS, found, strict=True):
        print(f"| {way.weights} | {way.moments} | {way.bytes} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

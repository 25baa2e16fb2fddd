"""Tries a model out: log-probs and gradients of rows with a shared prompt against copies of it.

The trial prompts have a medium, several, and none; their answers are ragged and random. It is done
in float32, whatever the model's dtype, so that rounding hides nothing, and an error counts by what
another prompt would have changed, too: logits that hardly depend on the prompt agree by themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mmrl.errors import UserError, one_line
from mmrl.policy import attention, plain
from mmrl.policy.attention import active_layout
from mmrl.policy.features import FeatureStore
from mmrl.policy.head import HeadTap
from mmrl.policy.policy import Policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.types import EncodedMedium, Prompt

if TYPE_CHECKING:
    from mmrl.policy.families.generic import Generic
    from mmrl.policy.families.generic_sharing import Form

LOGPROBS, GRADIENTS = 1e-5, 1e-4
"""Largest relative errors of log-probs and of all gradients together, in float32."""
CONTROL = 0.02
"""Largest share of what another prompt would have changed."""
DECODED = 0.05
"""Largest difference of a log-prob, in nats, between a model's decoding and its forward."""
WEIGHTS = 2**25
"""Of a model with more parameters than this only the gradients of vectors are compared."""
Shape = frozenset[str]
"""The kinds of media in a prompt; "several" of a kind where there is no other."""
LENGTHS = ((4, 1, 6), (5, 2), (3,), (2, 7), (6, 3, 1))
FAILS = (
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    StopIteration,
    TypeError,
    UserError,
    ValueError,
)
"""What a forward that nobody here has looked at may raise."""


@dataclass
class Probe:
    """Rows of trial prompts behind a family, and what copies of the prompts make of them.

    `not_taken` are the kinds of media of prompts on which the model's forward fails, with what it
    says. `one_by_one`: copies of a prompt do not go through it side by side.
    """

    family: Generic
    rows: list[SharedRow] = field(default_factory=list, init=False)
    not_taken: dict[Shape, str] = field(default_factory=dict, init=False)
    one_by_one: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._model = self.family.model
        self._head = HeadTap(self._model)
        self._prompts = list(self.family.trials())
        self._vocabulary = len(self.family.processor.tokenizer)
        if not self._prompts:
            name = type(self._model).__name__
            raise UserError(f"{name}: its processor fails on every trial prompt")

    def _make_rows(self) -> None:
        """Give every prompt some random answers of ordinary tokens."""
        words, rng = self._words(), np.random.default_rng(0)
        for number, prompt in enumerate(self._prompts):
            sizes = LENGTHS[number % len(LENGTHS)]
            self.rows.append(SharedRow(prompt, tuple(rng.choice(words, n) for n in sizes)))

    def _words(self) -> np.ndarray:
        """Ids of ordinary tokens."""
        tokenizer = self.family.processor.tokenizer
        special = {*tokenizer.added_tokens_decoder, *self.family.banned_ids}
        return np.array([i for i in range(self._vocabulary) if i not in special])

    @torch.no_grad()
    def run_copies(self) -> None:
        """Run every row with a copy of the prompt for each response.

        Leaves out those on which it fails; raises UserError where it fails on all.
        """
        self._make_rows()
        kept = []
        for row in self.rows:
            try:
                alone = [self._plain([SharedRow(row.prompt, (a,))]) for a in row.responses]
            except FAILS as error:
                self.not_taken.setdefault(shape_of(row.prompt.media), one_line(error, 120))
                continue
            kept.append(row)
            if not self._copies_agree(row, torch.cat(alone)):
                self.one_by_one = self.family.one_by_one = True
        if not kept or (self.family.takes and not any(row.prompt.media for row in kept)):
            name, why = type(self._model).__name__, next(iter(self.not_taken.values()), "")
            raise UserError(f"{name}: a first forward fails: {why}")
        ignored = [row for row in kept if self._ignored(row)]
        for row in ignored:
            self.not_taken.setdefault(shape_of(row.prompt.media), "nothing comes of it")
        lost = {medium.kind for row in ignored for medium in row.prompt.media}
        self.family.unmarked = tuple(k for k in self.family.unmarked if k not in lost)
        kept = [row for row in kept if not lost & {m.kind for m in row.prompt.media}]
        self.rows = kept
        for row in kept:  # one of its kind that fails is a matter of its size
            self.not_taken.pop(shape_of(row.prompt.media), None)

    def _ignored(self, row: SharedRow) -> bool:
        """Whether no token stands for a prompt's media and its log-probs do not depend on them."""
        kinds = {medium.kind for medium in row.prompt.media}
        if not kinds or not kinds <= set(self.family.unmarked):
            return False
        dark = [
            dataclasses.replace(m, tensors={key: t * 0 for key, t in m.tensors.items()})
            for m in row.prompt.media
        ]
        prompt = dataclasses.replace(row.prompt, media=tuple(dark))
        found = self._plain([SharedRow(prompt, row.responses)])
        return relative(found, self._plain([row])) <= LOGPROBS

    def _copies_agree(self, row: SharedRow, alone: Tensor) -> bool:
        try:
            return relative(self._plain([row]), alone) < LOGPROBS
        except FAILS:
            return False

    def difference(self, forms: Sequence[Form]) -> tuple[str, Form]:
        """The first of some forms in which rows that share prompts equal copies of them.

        With the reason why there is none, "" if there is.
        """
        reason = ""
        with _learning(self._model) as parameters:
            wanted = self._plain(self.rows)
            slopes = _slopes(wanted, parameters)
            other = self._behind_another_prompt()
            for form in forms:
                rows = [SharedRow(form.on(self.family, r.prompt), r.responses) for r in self.rows]
                if reason and all(row.prompt.blocks is None for row in rows):
                    continue
                try:
                    said = self._differs(rows, wanted.detach(), slopes, other, parameters)
                except FAILS as failure:
                    return f"a forward of a shared row fails: {one_line(failure, 120)}", form
                if not said:
                    return "", form
                reason = reason or said
        return reason, forms[0]

    def _differs(
        self,
        rows: Sequence[SharedRow],
        wanted: Tensor,
        slopes: Tensor,
        other: Tensor,
        parameters: Sequence[Tensor],
    ) -> str:
        """What tells shared rows from copies; "" for nothing."""
        found = self._shared(rows)
        error, control = relative(found.detach(), wanted), relative(other, wanted)
        if not (error < LOGPROBS and error < CONTROL * control):
            return f"log-probs would be off by {error:.0e} (another prompt: {control:.0e})"
        error = relative(_slopes(found, parameters), slopes)
        return "" if error < GRADIENTS else f"gradients would be off by {error:.0e}"

    @torch.no_grad()
    def _behind_another_prompt(self) -> Tensor:
        """Log-probs of the rows' responses, each behind the prompt of the row before."""
        prompts = [row.prompt for row in self.rows]
        return torch.cat(
            [
                self._plain([SharedRow(prompt, row.responses)])
                for prompt, row in zip([*prompts[1:], prompts[0]], self.rows, strict=True)
            ]
        )

    def _plain(self, rows: Sequence[SharedRow]) -> Tensor:
        return self._logprobs(rows, shared=False)

    def _shared(self, rows: Sequence[SharedRow]) -> Tensor:
        with self.family.attending(attention.NAME):
            return self._logprobs(rows, shared=True)

    def _logprobs(self, rows: Sequence[SharedRow], shared: bool) -> Tensor:
        family = self.family.declared(shared_prefix=shared)
        policy = Policy(self._model, family.processor, family, self._head, FeatureStore(family))
        layout = lay_out(rows, policy.device)
        with active_layout(layout):
            return policy.logprobs(layout, [row.prompt for row in rows], 1.0)[0]

    @torch.no_grad()
    def forwards_differ(self) -> bool:
        """Whether two forwards of one prompt give logits that are not even alike."""
        prompt, ids = self._first()
        fed = plain.inputs(self.family, prompt, ids, torch.ones_like(ids))
        try:
            one, two = (self._model(use_cache=False, **fed).logits for _ in range(2))
        except FAILS:
            return False  # what fails is said when it decodes
        return not relative(two.float(), one.float()) < LOGPROBS

    @torch.no_grad()
    def step_fails(self) -> str:
        """What the model says of tokens alone, as in a decoding step; "" where they go through."""
        row = self.rows[0]
        places = np.tile(np.arange(len(row.responses[0])), (len(row.prompt.positions), 1))
        words = dataclasses.replace(
            row.prompt, ids=row.responses[0], positions=places, media=(), order=(), blocks=None
        )
        try:
            self._shared([SharedRow(words, row.responses)])
        except FAILS as error:
            return f"tokens without media do not go through it: {one_line(error, 120)}"
        return ""

    @torch.no_grad()
    def decoding_gap(self) -> float:
        """Largest difference of log-probs, in nats, between `generate` and a whole forward."""
        try:
            return self._gap(*self._first())
        except FAILS as error:
            name = type(self._model).__name__
            raise UserError(f"{name}: a first `generate` fails: {one_line(error)}") from error

    def _first(self) -> tuple[Prompt, Tensor]:
        """The first prompt, and the ids [1, L] that stand in front of a response to it."""
        prompt = self._prompts[0]
        front = self.family.reading.front(prompt.ids)
        return prompt, torch.from_numpy(front).to(self._model.device)[None]

    def _gap(self, prompt: Prompt, ids: Tensor) -> float:
        with plain.own_distribution(self._model, self.family.reading.start):
            out = self._model.generate(
                min_new_tokens=3,
                max_new_tokens=3,
                do_sample=False,
                suppress_tokens=list(self.family.banned_ids),
                eos_token_id=list(self.family.end_ids),
                return_dict_in_generate=True,
                output_logits=True,
                **plain.inputs(self.family, prompt, ids, torch.ones_like(ids)),
            )
        self._vocabulary = min(self._vocabulary, out.logits[0].shape[-1])
        whole = out.sequences[:, :-1]
        fed = plain.inputs(self.family, prompt, whole, torch.ones_like(whole))
        logits = self._model(use_cache=False, **fed).logits[0, -len(out.logits) :]
        stepped = torch.cat(out.logits).float().log_softmax(-1)
        return float((stepped - logits.float().log_softmax(-1)).abs().max())


def shape_of(media: Sequence[EncodedMedium]) -> Shape:
    """What kinds of media a prompt mixes, or whether it has one or several of one kind."""
    kinds = ["image" if medium.kind == "screenshot" else medium.kind for medium in media]
    if len(kinds) > len(set(kinds)) == 1:
        return frozenset({f"several {kinds[0]}"})
    return frozenset(kinds)


def relative(found: Tensor, wanted: Tensor) -> float:
    """Norm of a difference by the norm of what is wanted, of any shape."""
    return float((found - wanted).norm() / wanted.norm().clamp_min(1e-30))


def _slopes(values: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Gradient of a weighted sum of log-probs, one vector for all parameters."""
    weights = torch.randn(len(values), generator=torch.Generator().manual_seed(0))
    loss = (values * weights.to(values.device)).sum()
    found = torch.autograd.grad(loss, list(parameters), allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten().float()
            for p, g in zip(parameters, found, strict=True)
        ]
    )


@contextmanager
def _learning(model: nn.Module) -> Iterator[list[Tensor]]:
    """The parameters whose gradients are compared, all others frozen meanwhile."""
    named = list(model.parameters())
    before = [p.requires_grad for p in named]
    small = sum(p.numel() for p in named) <= WEIGHTS
    chosen = [p for p in named if p.is_floating_point() and (small or p.dim() == 1)]
    for p in named:
        p.requires_grad_(False)
    for p in chosen:
        p.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield list(chosen)
    finally:
        for p, was in zip(named, before, strict=True):
            p.requires_grad_(was)


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """The model's weights in float32 meanwhile; they come back as they were, bit for bit."""
    tensors = [*model.parameters(), *model.buffers()]
    kept = [(t, t.dtype) for t in tensors if t.dtype in (torch.bfloat16, torch.float16)]
    try:
        for tensor, _ in kept:
            tensor.data = tensor.data.float()
        yield
    finally:
        for tensor, dtype in kept:
            tensor.data = tensor.data.to(dtype)

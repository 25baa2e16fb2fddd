"""The policy: a transformers model, its processor and its family behind a few verbs."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging as transformers_logging

from mmrl import plugins
from mmrl.errors import UserError, one_line
from mmrl.model_config import ModelConfig
from mmrl.policy import attention, linears, lora, plain, recurrent_layers, text_processor
from mmrl.policy.buckets import Buckets, Gather, take_in_buckets, weights_in_buckets
from mmrl.policy.family import Declaration, Family, Limits
from mmrl.policy.features import FeatureStore
from mmrl.policy.head import HeadTap
from mmrl.policy.kept import Kept
from mmrl.policy.lockstep import Lockstep, adding
from mmrl.policy.logprobs import CHUNK_TOKENS, token_logprobs
from mmrl.policy.model_folder import check_folder
from mmrl.policy.prompts import Prompts
from mmrl.policy.responses import Responses
from mmrl.policy.saving import save_in_buckets
from mmrl.policy.shared_prefix import SharedPrefix, SharedRow, lay_out
from mmrl.types import EncodedMedium, Prompt

transformers_logging.disable_progress_bar()  # its bars would tear the run's own display

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Policy:
    """A model, its processor and its family, with the model's head and towers in hand.

    `adapter` is what is trained where there is one; `bare` runs the model without it. `recurs` says
    that layouts decide in recurrent layers too. `run` carries a pass out, of a policy whose weights
    a backend shards, and `gather` makes some of these whole. With a `lockstep` the passes of all
    processes are alike. `asked_for` names the family where the model's type did not choose it.
    `kept` are prompts that wait for their update.
    """

    model: Any
    processor: Any
    family: Family
    head: HeadTap
    store: FeatureStore
    adapter: lora.Adapter | None = None
    bare: bool = False
    recurs: bool = False
    run: Callable[[Callable[[], Any]], Any] = field(default=lambda call: call())
    gather: Gather | None = None
    asked_for: str | None = None
    kept: Kept = field(default_factory=Kept)

    @property
    def device(self) -> torch.device:
        return cast(torch.device, self.model.device)

    @property
    def banned(self) -> Tensor:
        """Ids [n] that are never sampled and have no probability: every media placeholder.

        One that the model's logits do not reach has none anyway.
        """
        ids, end = self.family.banned_ids, self.head.vocabulary
        kept = [i for i in ids if end is None or i < end]
        return torch.tensor(kept, dtype=torch.long, device=self.device)

    def hidden_states(
        self,
        ids: Tensor,
        positions: Tensor,
        media: Sequence[EncodedMedium],
        lockstep: Lockstep | None = None,
    ) -> Tensor:
        """Run the trunk on flat tokens [N] at positions [axes, N] -> [N, H].

        The layout must be active until backward is done; `media` stand in the order of their
        placeholders and are encoded once each.
        """
        features, spare = self.store.features(media, lockstep)
        with (
            adding(self.model.get_input_embeddings(), spare),
            self.family.feeding(ids, media, features) as inputs,
        ):
            taken = self.head.take(
                self.model,
                input_ids=ids[None],
                position_ids=positions[:, None] if len(positions) > 1 else positions,
                attention_mask=None,
                use_cache=False,
                **inputs,
            )
        return taken[0]

    def run_prompts(self, prompts: Sequence[Prompt]) -> Prompts:
        """Run prompts through towers and trunk, for whatever goes on from them."""
        rows = lay_out([SharedRow(prompt, ()) for prompt in prompts], self.device)
        ran = Prompts(rows)
        with self._bared(), attention.active_layout(ran):
            ran.end(self.run(lambda: self.hidden_states(rows.ids, rows.positions, rows.media)))
        return ran

    def response_hidden(
        self,
        layout: SharedPrefix | Responses,
        prompts: Sequence[Prompt],
        lockstep: Lockstep | None = None,
    ) -> Tensor:
        """Hidden states [W, H] that predict the tokens that the model wrote, in row order."""
        if isinstance(layout, Responses):
            if not len(layout.ids):  # one token each, which their prompts predict
                return layout.predicting(layout.prompts.last[:0])
            hidden = self.hidden_states(layout.ids, layout.positions, layout.media)
            return layout.predicting(hidden)
        if self.family.declaration.shared_prefix:
            if self.recurs and lockstep is not None:
                layout.recurrence.least = lockstep.most(layout.recurrence.calls)
            hidden = self.hidden_states(layout.ids, layout.positions, layout.media, lockstep)
            return layout.predicting(hidden)
        return plain.hidden_rows(self.model, self.family, self.head, layout, prompts)

    def trained_copy(self) -> Policy:
        """A copy with weights of its own that learn like this one's."""
        model = copy.deepcopy(self.model)
        return wrap(model, self.processor, self._family_of(model), asked_for=self.asked_for)

    def _bared(self) -> AbstractContextManager[None]:
        return self.adapter.off() if self.bare and self.adapter else nullcontext()

    def logprobs(
        self,
        layout: SharedPrefix | Responses,
        prompts: Sequence[Prompt],
        temperature: float,
        lockstep: Lockstep | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies [M] of a layout's response tokens, in row order.

        Tokens of an environment have 0.
        """
        with self._bared():
            found: tuple[Tensor, Tensor] = self.run(
                lambda: self._logprobs(layout, prompts, temperature, lockstep)
            )
        return found

    def _logprobs(
        self,
        layout: SharedPrefix | Responses,
        prompts: Sequence[Prompt],
        temperature: float,
        lockstep: Lockstep | None,
    ) -> tuple[Tensor, Tensor]:
        hidden = self.response_hidden(layout, prompts, lockstep)
        calls = 0 if lockstep is None else lockstep.most(-(-len(hidden) // CHUNK_TOKENS))
        # Computed again on the way back, logits are made as this pass made them, not a later one.
        logprobs, entropies = token_logprobs(
            copy.copy(self.head), hidden, layout.targets, self.banned, temperature, at_least=calls
        )
        return layout.spread(logprobs), layout.spread(entropies)

    @contextmanager
    def learning(self, update: int) -> Iterator[None]:
        """Let recomputation and the adapters' dropout act in a block; all else stays in evaluation.

        Both act in training mode only. Dropout draws from the adapters' seed and `update`.
        """
        acting = [
            module
            for name, module in self.model.named_modules()
            if isinstance(module, GradientCheckpointingLayer) or ".lora_dropout." in name
        ]
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(hash((self.adapter.seed if self.adapter else 0, update)))
            for module in acting:
                module.training = True
            try:
                yield
            finally:
                for module in acting:
                    module.training = False

    def frozen_copy(self, *, sharing: bool = False) -> Policy:
        """The reference policy, which never changes: a copy, or the base of the adapters.

        `sharing` leaves both on one memory, for a backend that shards them, each for itself.
        """
        if self.adapter is not None:
            return dataclasses.replace(
                self, store=FeatureStore(self.family), bare=True, kept=Kept()
            )
        shared = {id(p): nn.Parameter(p.data, p.requires_grad) for p in self.model.parameters()}
        model = copy.deepcopy(self.model, shared if sharing else {}).eval().requires_grad_(False)
        return wrap(model, self.processor, self._family_of(model), asked_for=self.asked_for)

    def _family_of(self, model: Any) -> Family:
        """The family of a copy of the model, which encodes media as this one's does."""
        module = plugins.load("family", family_name(model.config.model_type, self.asked_for))
        family: Family = module.build(model, self.processor, self.family.limits)
        return family

    def load_weights(self, folder: Path) -> None:
        """Take over the weights of a checkpoint of the same model, bit for bit."""
        if self.adapter is not None:
            small = lora.adapter_parameters(self.model)
            with self.gather(small, written=True) if self.gather else nullcontext():
                self.adapter.load_weights(folder)
            return
        saved = type(self.model).from_pretrained(folder, dtype=self.model.dtype)
        take_in_buckets(self.model, self.gather, saved.state_dict())

    def weights(self) -> Buckets:
        """Yield the weights by name and in shapes as without adapters, which are added in.

        Here and below, where weights are sharded all processes go through the buckets alike.
        """
        if self.adapter is None:
            return weights_in_buckets(self.model, self.gather)
        return lora.merged_weights(self.model, self.gather)

    def base_weights(self) -> Buckets:
        """Yield the weights beside the adapters, in shapes as without these."""
        return lora.base_weights(self.model, self.gather)

    def adapter_weights(self) -> Buckets:
        """Yield the adapter's pairs, [rank, in] and [out, rank], alpha / rank in the second."""
        return lora.adapter_weights(self.model, self.gather)

    def save(self, folder: Path, *, writes: bool = True) -> None:
        """Write safetensors, config and processor; loads with `from_pretrained`.

        Of a model with adapters, the adapters only: loads with PeftModel's `from_pretrained`. Where
        weights are sharded all processes save, of which one `writes`.
        """
        if self.gather is None or self.adapter:
            small = lora.adapter_parameters(self.model)
            with self.gather(small) if self.gather else nullcontext():
                if writes:
                    (self.adapter.save if self.adapter else self.model.save_pretrained)(folder)
        else:
            save_in_buckets(self.model, self.weights(), folder, writes=writes)
        if writes:
            self.processor.save_pretrained(folder)


def load_policy(config: ModelConfig, device: torch.device | None = None, seed: int = 0) -> Policy:
    """Load a model folder behind its family; a user's mistake in the path raises UserError.

    A folder of adapters gives their base with the adapters merged. `seed` starts new adapters.
    """
    path, base = check_folder(config)
    with _readable(base):
        settings = AutoConfig.from_pretrained(
            base, trust_remote_code=config.trust_remote_code, local_files_only=True
        )
    name = family_name(settings.model_type, config.family)
    module = plugins.load("family", name)
    device = device or default_device()
    with _readable(base):
        loader = module.DECLARATION.loader_of(settings)
        model = _load_model(loader, module.DECLARATION, base, config, device)
    if base != path:
        model = lora.merge(model, path)
    adapter = lora.attach(model, module.DECLARATION, config.lora, seed) if config.lora else None
    with _readable(path):
        processor = text_processor.load(path, config.trust_remote_code)
    model.to(device)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    limits = Limits(
        config.max_prompt_tokens,
        config.min_pixels,
        config.max_pixels,
        config.min_video_pixels,
        config.max_video_pixels,
    )
    family = module.build(model, processor, limits)
    policy = wrap(model, processor, family, adapter, config.family)
    _freeze(policy, config)
    if config.family is None:
        warn_of_generic(name, settings.model_type, policy.family.declaration.notes)
    return policy


def _freeze(policy: Policy, config: ModelConfig) -> None:
    """Keep the parts of the model that the configuration names as they are."""
    tower, projector = policy.family.tower_parameters(), policy.family.projector_parameters()
    media = set(map(id, (*tower, *projector)))
    parts = {
        "freeze_tower": tower,
        "freeze_projector": projector,
        "freeze_language": [p for p in policy.model.parameters() if id(p) not in media],
    }
    for name, parameters in parts.items():
        if getattr(config, name) and not media:
            raise UserError(f"model.{name}: the generic family does not know the model's towers")
        for parameter in parameters if getattr(config, name) else ():
            parameter.requires_grad_(False)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """What transformers says of a folder that it cannot load, in one line."""
    try:
        yield
    except (ImportError, OSError, ValueError, SafetensorError) as error:
        raise UserError(f"transformers cannot load {folder}: {one_line(error)}") from error


def _load_model(
    loader: Any, declaration: Declaration, folder: Path, config: ModelConfig, device: torch.device
) -> Any:
    dtype = DTYPES[config.dtype]
    quantised = lora.quantisation(config.lora, declaration, dtype) if config.lora else None
    # A quantised model is packed on the device where it will run.
    placed = {"quantization_config": quantised, "device_map": {"": device}} if quantised else {}
    return loader.from_pretrained(
        folder,
        dtype=dtype,
        trust_remote_code=config.trust_remote_code,
        local_files_only=True,
        **placed,
    )


def default_device() -> torch.device:
    """The local CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def family_name(model_type: str, wanted: str | None) -> str:
    """The family to use: the one asked for, the one that serves the model's type, or `generic`."""
    if wanted is not None:
        return wanted
    for name in plugins.available("family"):
        if model_type in plugins.load("family", name).DECLARATION.model_types:
            return name
    return "generic"


def warn_of_generic(name: str, model_type: str, told: str) -> None:
    """Warn where a model has the generic family, which was not asked for, of what it is `told`."""
    if name == "generic":
        warnings.warn(
            f"no family serves model type '{model_type}', the generic one does: {told}; see "
            "`mmrl families`",
            stacklevel=3,
        )


def wrap(
    model: Any,
    processor: Any,
    family: Family,
    adapter: lora.Adapter | None = None,
    asked_for: str | None = None,
) -> Policy:
    """Put a model behind its family, with the layout deciding what its language layers see.

    `asked_for` is the family's name where the model's type did not choose it: copies are of it.
    """
    shared = family.declaration.shared_prefix
    if shared:
        model.set_attn_implementation({"text_config": attention.NAME})
    if linears.onednn_is_faster():
        linears.exchange(model)
    recurs = shared and recurrent_layers.share(model)
    tap, store = HeadTap(model), FeatureStore(family)
    policy = Policy(
        model, processor, family, tap, store, adapter, recurs=recurs, asked_for=asked_for
    )
    _check_logits(policy)
    return policy


@torch.no_grad()
def _check_logits(policy: Policy) -> None:
    """Raise UserError where what would be trained is not the model's own distribution."""
    prompt = policy.family.trial()
    layout = lay_out([SharedRow(prompt, (prompt.ids[-3:],))], policy.device)
    with attention.active_layout(layout):
        policy.head.check(policy.model, lambda: policy.response_hidden(layout, [prompt]))

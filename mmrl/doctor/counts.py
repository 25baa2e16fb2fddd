"""What a run's prompts are like: tokens, media, and what the towers see for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmrl import plugins
from mmrl.config import RunConfig
from mmrl.corpus.table import missing
from mmrl.data.samples import load_samples
from mmrl.data_config import DataConfig
from mmrl.doctor.shape import Tower, weightless
from mmrl.errors import MediaError
from mmrl.policy import text_processor
from mmrl.policy.encoder import Encoder
from mmrl.policy.family import Family, Limits
from mmrl.policy.lockstep import blank
from mmrl.policy.model_folder import model_folder
from mmrl.policy.policy import family_name
from mmrl.scoring.tasks import load_task
from mmrl.types import EncodedMedium, Prompt

RECORDS = 32
"""Records of each data source that are looked at."""


@dataclass(frozen=True)
class Asked:
    """One prompt: its tokens, those that media fill, and the positions that each tower has for it.

    `media_bytes` are what the processor makes of its media.
    """

    tokens: int
    media_tokens: int
    positions: tuple[float, ...]
    media_bytes: int = 0


@dataclass(frozen=True)
class Counts:
    """The prompts of the records looked at.

    With no record at hand it is one prompt at its limit, and every token is taken for a medium's.
    `opening` is what the chat template writes of the response's thought, `turns` how many answers
    an episode has at most, 1 where nothing is one.
    """

    records: int
    asked: tuple[Asked, ...]
    opening: str = ""
    turns: int = 1

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the longest prompt."""
        return max(each.tokens for each in self.asked)

    @property
    def media_tokens(self) -> int:
        """Tokens of media in the prompt that has most of them."""
        return max(each.media_tokens for each in self.asked)

    @property
    def media_bytes(self) -> int:
        """Bytes of a prompt's processed media, on average."""
        return sum(each.media_bytes for each in self.asked) // len(self.asked)

    def line(self) -> str:
        """What was looked at, in words."""
        if not self.records:
            return "no record at hand: every prompt token is taken for a medium's"
        return (
            f"{self.records} records: prompts of up to {self.prompt_tokens} tokens, "
            f"{self.media_tokens} of them media"
        )


def count(config: RunConfig, towers: Sequence[Tower]) -> Counts:
    """Encode some of the run's records, if they are there, with the model's own processor."""
    family = family_of(config)
    prompts = [
        p for data in config.data if not missing(data.path) for p in _prompts(config, data, family)
    ]
    if not prompts:
        return _without_records(config, family, towers)
    asked = [
        Asked(
            tokens=len(prompt.ids),
            media_tokens=sum(medium.num_tokens for medium in prompt.media),
            positions=tuple(sum(positions(m, t) for m in prompt.media) for t in towers),
            media_bytes=sum(map(tensor_bytes, prompt.media)),
        )
        for prompt in prompts
    ]
    episodes = [prompt.sample.turns for prompt in prompts if prompt.sample.start is not None]
    turns = max(episodes, default=1)
    return Counts(len(prompts), tuple(asked), family.trial().opening, turns)


def family_of(config: RunConfig) -> Family:
    """The family of a run's model, on a model without weights and with the run's limits."""
    model, _ = weightless(config)
    path = model_folder(config.model.path)
    remote = config.model.trust_remote_code
    processor = text_processor.load(path, remote)
    wanted = config.model
    limits = Limits(
        wanted.max_prompt_tokens,
        wanted.min_pixels,
        wanted.max_pixels,
        wanted.min_video_pixels,
        wanted.max_video_pixels,
    )
    name = family_name(model.config.model_type, wanted.family)
    built: Family = plugins.load("family", name).build(model, processor, limits)
    return built


def _prompts(config: RunConfig, data: DataConfig, family: Family) -> Iterator[Prompt]:
    task = load_task(data.task, data.params)
    samples = load_samples(
        task,
        data.path,
        data.task,
        lambda record, reason: None,
        RECORDS,
        data.columns,
        data.media_roots,
    )
    encoder = Encoder(family, defaults=config.media, overflow=config.model.overflow)
    for sample in samples:
        try:
            yield encoder.prompt(sample)
        except MediaError:
            continue  # the run will quarantine it, with the reason
    encoder.close()


def _without_records(config: RunConfig, family: Family, towers: Sequence[Tower]) -> Counts:
    blanks = list(_blanks(family))
    limit = config.model.max_prompt_tokens
    densest = tuple(max(positions(m, t) / m.num_tokens for m in blanks) for t in towers)
    made = max((tensor_bytes(m) / m.num_tokens for m in blanks), default=0.0)
    longest = Asked(limit, limit, tuple(limit * share for share in densest), int(limit * made))
    return Counts(0, (longest,), family.trial().opening)


def tensor_bytes(medium: EncodedMedium) -> int:
    """Bytes of what the processor made of a medium."""
    return sum(tensor.nbytes for tensor in medium.tensors.values())


def _blanks(family: Family) -> Iterator[EncodedMedium]:
    """A blank of each kind that this model of the family takes; some have no ears."""
    for kind in family.declaration.takes:
        try:
            yield blank(family, kind)
        except MediaError:
            continue


def positions(medium: EncodedMedium, tower: Tower) -> float:
    """Positions that a tower has for a medium; its input is the largest tensor that it reads."""
    read = [
        tensor
        for name, tensor in medium.tensors.items()
        if ("feature" in name or "audio" in name) == tower.heard and tensor.is_floating_point()
    ]
    elements = max((tensor.numel() for tensor in read), default=0)
    mask = medium.tensors.get("feature_attention_mask")
    if tower.windows and mask is not None:
        elements = int(elements * float(mask.float().mean()))
    return elements / tower.elements

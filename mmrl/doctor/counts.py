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
class Counts:
    """The longest prompt of those looked at, and how much a trunk token can bring to the towers.

    `positions` are a tower's, for each trunk token of a row with its shortest answers; one number
    a tower. With no record at hand, every token of a prompt is taken for a medium's.
    `opening` is what the chat template writes of the response's thought.
    """

    records: int
    prompt_tokens: int
    media_tokens: int
    positions: tuple[float, ...]
    opening: str = ""

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
    answers = int(config.algorithm.get("group_size", 8))
    return Counts(
        records=len(prompts),
        prompt_tokens=max(len(p.ids) for p in prompts),
        media_tokens=max(sum(m.num_tokens for m in p.media) for p in prompts),
        positions=tuple(
            max(sum(positions(m, t) for m in p.media) / (len(p.ids) + answers) for p in prompts)
            for t in towers
        ),
        opening=family.trial().opening,
    )


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
    opening = family.trial().opening
    return Counts(0, limit, limit, positions=densest, opening=opening)


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

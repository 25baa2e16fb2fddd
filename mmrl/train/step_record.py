"""What a step leaves in the run folder: its numbers, what was asked, and what was answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmrl.policy.encoder import decoded_again
from mmrl.runlog.metrics import group_metrics, memory_metrics
from mmrl.runlog.transcript import Entry, advantages_of
from mmrl.train.parts import Parts
from mmrl.train.trainer import StepResult, update_metrics
from mmrl.types import EncodedMedium, Floats, Group, Media


def step_metrics(parts: Parts, result: StepResult) -> dict[str, float]:
    """The numbers of a step under flat names: see docs/metrics.md."""
    setting = parts.setting
    responses = sum(len(group.responses) for group in result.groups)
    return {
        **group_metrics(result.groups),
        **update_metrics(result.updates),
        **result.seconds,
        **result.overlap,
        **memory_metrics(),
        "memory/media": parts.rollout.encoder.kept_bytes / 2**20,
        **setting.records.quarantine.metrics(),
        **({"phase": setting.place.phase + 1.0} if setting.phase.name else {}),
        "train/kl_coefficient": result.kl_coefficient,
        "train/rows": float(len(result.samples)),
        "train/rows_to_responses": len(result.samples) / max(responses, 1),
        "prompts/drawn": float(result.prompts_drawn),
        "prompts/kept": float(len(result.groups)),
    }


def write_down(parts: Parts, step: int, result: StepResult) -> None:
    """Append what was asked and answered in `step` of the run to its folder, and to trackers."""
    records, config = parts.setting.records, parts.setting.config.trainer
    ids = [group.prompt.sample.id for group in result.groups]
    records.consumed.append([{"step": step, "ids": ids}])
    if step % config.write_rollouts_every == 0:
        shown = advantages_of(result.groups, result.samples)
        pairs = zip(result.groups, shown, strict=True)
        lines = records.transcript.write(step, [_entry(parts, *pair) for pair in pairs])
        parts.trackers.table(step, lines)


def _entry(parts: Parts, group: Group, advantages: Sequence[Floats | None]) -> Entry:
    tokenizer = parts.models.policy.processor.tokenizer
    lacks = parts.setting.records.transcript.lacks
    return Entry(
        group=group,
        prompt=tokenizer.decode(list(group.prompt.compact_ids)),
        media={**parts.rollout.encoder.decoded(group.prompt, lacks), **_observed(group, lacks)},
        advantages=advantages,
        tokens=[[tokenizer.decode([i]) for i in r.ids.tolist()] for r in group.responses],
    )


def _observed(group: Group, lacks: Callable[[EncodedMedium], bool]) -> dict[str, Media]:
    """What environments showed and nobody has drawn yet, decoded once more."""
    media = [m for r in group.responses if r.observed for m in r.observed.media]
    wanted = {m.hash: m.source for m in media if m.source is not None and lacks(m)}
    return decoded_again(wanted)

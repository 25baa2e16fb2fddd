"""Does it learn, in every modality and by every kind of reward? A supervised start and a GRPO run.

    python tools/modality_runs.py [--kinds audio video ...] [--seeds 0 1] [--shuffled] [--controls]

Prints Markdown tables and writes them to OUT/table.md: the held-out metric before and after with
bootstrap intervals, with `--shuffled` the same for rewards shuffled within groups, and with
`--controls` what is left of it when the model is shown other media than those asked about. Starts
and runs that are there are not repeated; what was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from make_modality_models import CONFIGS, MODELS, make

from mmrl import api
from mmrl.config import RunConfig, load_config
from mmrl.data.samples import load_samples
from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.evaluate.ask import evaluate
from mmrl.evaluate.summary import Evaluation
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import load_policy
from mmrl.scoring.pool import Scorer, TaskSpec
from mmrl.scoring.tasks import load_task
from mmrl.train import checkpoint
from mmrl.types import EncodedMedium, Media, MediaRef, Sample

QUICKSTART = CONFIGS.parent / "quickstart.yaml"
KINDS = ("image", *MODELS)
HEAD = (
    "| kind | task | metric | rewards | seed | before | after | seconds |\n"
    "|---|---|---|---|---|---|---|---|"
)
CONTROLS_HEAD = "| kind | shown at evaluation | metric |\n|---|---|---|"

Change = Callable[[Media], Media]


@dataclass(frozen=True)
class Control:
    """Other media than those asked about: changed, or the next record's at some `places`."""

    shown: str
    change: Change = lambda media: media
    places: tuple[int, ...] = ()


def in_order(order: Callable[[int], Any]) -> Change:
    return lambda media: replace(
        media, array=media.array[order(len(media.array))], hash=f"{media.hash} in another order"
    )


def without_sound(media: Media) -> Media:
    silence = None if media.track is None else np.zeros_like(media.track)
    return replace(media, track=silence, hash=f"{media.hash} without sound")


CONTROLS: Mapping[str, tuple[Control, ...]] = {
    "two_images": (
        Control("another second picture", places=(1,)),
        Control("another first picture", places=(0,)),
    ),
    "video": (
        Control("frames backwards", in_order(lambda n: np.arange(n)[::-1])),
        Control("frames shuffled", in_order(lambda n: np.random.default_rng(0).permutation(n))),
        Control("another clip", places=(0,)),
    ),
    "audio": (Control("another sound", places=(0,)),),
    "audio_video": (
        Control("its pictures without its sound", without_sound),
        Control("its sound with the first frame only", in_order(lambda n: np.zeros(n, dtype=int))),
        Control("another clip", places=(0,)),
    ),
    "screenshot": (Control("another screen", places=(0,)),),
    "boxes": (Control("another picture", places=(0,)),),
}


def configuration(kind: str, seed: int, out: Path, rewards: str = "none") -> RunConfig:
    """The configuration of a kind's GRPO run, the quickstart's for one picture."""
    folder = out / f"{kind}-{seed}{'' if rewards == 'none' else f'-{rewards}'}"
    overrides = [f"run={folder}", f"seed={seed}", f"trainer.reward_control={rewards}"]
    overrides += ["trainer.write_rollouts_every=10", "trainer.checkpoint_every=20"]
    if kind == "image":
        return load_config(QUICKSTART, overrides)
    overrides.append(f"model.path={make(kind, out / 'models')}")
    return load_config(CONFIGS / f"{kind}.yaml", overrides)


def run(config: RunConfig) -> None:
    """Train, unless it is done; a run that was cut off goes on."""
    if not (config.run / "result.json").is_file():
        begun = checkpoint.latest(config.run) is not None
        api.train(config, resume=begun, overwrite=True)


def row(kind: str, config: RunConfig) -> str:
    """A run's line of the table."""
    before, after = (read(config.run / f"eval_{when}.json") for when in ("before", "after"))
    rewards = "as scored" if config.trainer.reward_control == "none" else "shuffled"
    seconds = f"{read(config.run / 'result.json')['seconds']:.0f}"
    task, metric = before["task"], before["metric_name"]
    cells = (kind, task, metric, rewards, config.seed, number(before), number(after), seconds)
    return f"| {' | '.join(map(str, cells))} |"


def number(evaluation: Mapping[str, Any]) -> str:
    """A held-out metric with its interval."""
    low, high = evaluation["low"], evaluation["high"]
    return f"{evaluation['metric']:.1%} [{low:.1%}, {high:.1%}]"


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def controls(kind: str, config: RunConfig) -> list[str]:
    """Lines that say how well a trained model answers all held-out records about other media."""
    trained = checkpoint.latest(config.run)
    assert trained is not None, "the run is done"
    found = [("the media asked about", number(read(config.run / "eval_after.json")))]
    for control in CONTROLS.get(kind, ()):
        shown = answer(config, trained.path, control)
        found.append((control.shown, number(shown.to_json())))
    return [f"| {kind} | {shown} | {metric} |" for shown, metric in found]


def answer(config: RunConfig, model: Path, control: Control) -> Evaluation:
    """Evaluate a model on a kind's held-out records with other media."""
    (data,) = config.data
    assert data.eval_path is not None
    task = load_task(data.task, data.params)
    samples = load_samples(task, data.eval_path, data.task, lambda record, reason: None)
    policy = load_policy(config.model.model_copy(update={"path": str(model)}))
    encoder = Encoder(Changed(policy.family, control.change), defaults=config.media)  # type: ignore[arg-type]
    specs = {data.task: TaskSpec(data.task, data.params, {})}
    rollout = config.rollout
    with Scorer(specs, rollout.scoring_workers, rollout.scoring_timeout_seconds) as scorer:
        sampling = Sampling(rollout.max_new_tokens, temperature=0.0)
        swapped = exchanged(samples, control.places)
        return evaluate(swapped, task, encoder, HFEngine(policy), scorer, sampling)


def exchanged(samples: list[Sample], places: tuple[int, ...]) -> list[Sample]:
    """Samples with the next sample's medium at each of these places among its media."""
    return [
        with_media(sample, {place: media_of(other)[place] for place in places})
        for sample, other in zip(samples, samples[1:] + samples[:1], strict=True)
    ]


def media_of(sample: Sample) -> list[MediaRef]:
    return [part for part in sample.parts if isinstance(part, MediaRef)]


def with_media(sample: Sample, media: Mapping[int, MediaRef]) -> Sample:
    known = media_of(sample)
    chosen = iter([media.get(place, ref) for place, ref in enumerate(known)])
    parts = (next(chosen) if isinstance(part, MediaRef) else part for part in sample.parts)
    return replace(sample, parts=tuple(parts))


class Changed:
    """A family that is shown every medium changed."""

    def __init__(self, family: Any, change: Change) -> None:
        self._family, self._change = family, change

    def encode_medium(self, media: Media) -> EncodedMedium:
        encoded: EncodedMedium = self._family.encode_medium(self._change(media))
        return encoded

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--shuffled", action="store_true")
    parser.add_argument("--controls", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/modalities"))
    args = parser.parse_args()
    rows, shown = [HEAD], [CONTROLS_HEAD]
    for kind in args.kinds:
        for rewards in ("none", "shuffle") if args.shuffled else ("none",):
            for seed in args.seeds if rewards == "none" else args.seeds[:1]:
                config = configuration(kind, seed, args.out, rewards)
                run(config)
                rows.append(row(kind, config))
        if args.controls:
            shown += controls(kind, configuration(kind, args.seeds[0], args.out))
    text = "\n".join(rows + (["", *shown] if args.controls else []))
    (args.out / "table.md").write_text(f"{text}\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

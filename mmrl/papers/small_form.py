"""A run in its small form: all phases, with the tiny model, on made records, in a few steps.

What a method is made of stays: phases, algorithms, stages, tasks, rewards, curricula. What makes it
long does not: the model, the records (those that ship with the task), steps, answers, group sizes,
lengths. A file's own section `small` stands over that, section by section, phase by phase.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.config import RunConfig
from mmrl.data_config import OWN_PHASE
from mmrl.evaluate.benchmark import EvalConfig
from mmrl.scoring.tasks import fixture_path
from mmrl.train.checkpoint_files import newest
from mmrl.validation import validate

FIXTURE = "fixture.jsonl"
TINY = "asset:tiny_qwen2_5_vl"
KEPT_OF_MODEL = ("freeze_tower", "freeze_projector", "freeze_language", "lora")
MOST: Mapping[str, int] = {
    "steps": 2,
    "prompts_per_step": 2,
    "group_size": 4,
    "critic_steps": 1,
    "warmup_steps": 0,
    "checkpoint_every": 0,
    "eval_every": 0,
    "max_turn_tokens": 12,
    "max_environment_tokens": 600,
}
"""What is made smaller wherever it stands."""
SAMPLED_TOKENS, WRITTEN_TOKENS = 24, 600
UNTIL_ASKED = 100_000
"""Steps of an estimate phase, which ends of itself once every record was asked."""
HERE = ("hf", "targets")
"""Engines that a small form has."""
ELSEWHERE = ("vllm", "servers", "adapter_sync", "correction", "max_staleness")
"""Options of engines that a small form does not have."""


def small_values(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a run's small form, `given` over what the rule makes of them."""
    made = _smaller(values)
    made["model"] = {
        "path": TINY,
        **{key: values["model"][key] for key in KEPT_OF_MODEL if key in values["model"]},
    }
    made["rollout"] = _rollout(values.get("rollout", {}))
    made["trainer"]["eval_limit"] = 2
    for section in (made.get("start", {}), *made.get("phases", ())):
        section |= {"language": TINY} if "language" in section else {}
    over: dict[str, Any] = _with_records(_over(made, given))
    return over


def evaluation_of(config: RunConfig, options: Mapping[str, Any]) -> EvalConfig:
    """A small form's own evaluation of what it has trained, by `options` of a paper's.

    Budgets of thinking become two short ones, samples two.
    """
    source = config.data[0]
    values = {
        **options,
        "task": source.task,
        "data": source.eval_path,
        "params": source.params,
        "model": {"path": str(newest(config.run) or config.run)},
        "rollout": {"max_new_tokens": SAMPLED_TOKENS, "scoring_workers": 1},
        "limit": 2,
    }
    if "samples" in options:
        values["samples"] = 2
    if budgets := options.get("ways", {}).get("budgets"):
        values["ways"] = {**options["ways"], "budgets": [4 * (i + 1) for i in range(len(budgets))]}
    return validate(EvalConfig, values, "evaluation")


def _smaller(values: Any) -> Any:
    if isinstance(values, list):
        return [_smaller(value) for value in values]
    if not isinstance(values, dict):
        return values
    made = {key: _smaller(value) for key, value in values.items()}
    made |= {key: min(most, made[key]) for key, most in MOST.items() if key in made}
    if values.get("steps", 0) >= UNTIL_ASKED:
        made["steps"] = values["steps"]
    if "task" in made:
        made = _source(made)
    elif isinstance(made.get("rollout"), dict):
        made["rollout"] = _rollout(values["rollout"], whole=False)
    return made


def _source(source: dict[str, Any]) -> dict[str, Any]:
    """The same source on the records that ship with its task, which are drawn and evaluated on."""
    left = {key: value for key, value in source.items() if key not in ("recipe", "keep")}
    if not str(left.get("stored", "")).startswith(OWN_PHASE):
        left.pop("stored", None)
    path = str(fixture_path(source["task"]))
    return {**left, "path": path, "eval_path": path}


def _with_records(made: Any) -> Any:
    """Sources that were given another task on the records that ship with that."""
    if isinstance(made, list):
        return [_with_records(value) for value in made]
    if not isinstance(made, dict):
        return made
    if "task" not in made:
        return {key: _with_records(value) for key, value in made.items()}
    moved = [key for key in ("path", "eval_path") if str(made.get(key)).endswith(FIXTURE)]
    return {**made, **dict.fromkeys(moved, str(fixture_path(made["task"])))} if moved else made


def _rollout(values: Mapping[str, Any], *, whole: bool = True) -> dict[str, Any]:
    """`whole`: the run's own section, not a phase's, which says only what differs."""
    made = {key: _smaller(value) for key, value in values.items() if key not in ELSEWHERE}
    written = made.get("engine") == "targets"
    if made.get("engine") not in (None, *HERE):
        del made["engine"]
    if written or whole or "max_new_tokens" in made:
        made["max_new_tokens"] = WRITTEN_TOKENS if written else SAMPLED_TOKENS
    return {**made, "scoring_workers": 1} if whole else made


def _over(made: Any, given: Any) -> Any:
    """`given` over what there is: key by key (null leaves a key out), phase by phase."""
    if isinstance(made, dict) and isinstance(given, dict):
        over = {**made, **{key: _over(made.get(key), value) for key, value in given.items()}}
        return {key: value for key, value in over.items() if given.get(key, value) is not None}
    if isinstance(made, list) and isinstance(given, dict):
        return [_over(part, given.get(part.get("name", i), {})) for i, part in enumerate(made)]
    return given

"""Plays environments of the package `verifiers` (0.4): settings are those of its `--env`.

    {"taskset": {"id": "color-codeword", ...}, "id": "", "agent": {...}, "sampling": {...}}

A seat that says nothing else runs in this process (`mmrl_chat`), or by the harness `null` where
there are tools, on this machine: never in a sandbox that somebody sells, and nothing is uploaded.
The reward is the mean of the trainable seats' own.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from host_lines import Tell, fail, own_output, serve

NO_KEY = "MMRL_HAS_NO_KEY"


def environment(settings: dict[str, Any]) -> Any:
    """The environment of settings, its seats on this machine."""
    from verifiers.v1.configs.agent import AgentConfig
    from verifiers.v1.utils.loaders import (
        env_config_type,
        load_environment,
        load_taskset,
        resolve_env_config,
    )

    values = {key: value for key, value in settings.items() if key != "sampling"}
    taskset = values["taskset"]
    kind = env_config_type(taskset["id"], values.get("id", ""))
    first = load_taskset(resolve_env_config(values).taskset)
    tools = first.toolsets(first.config) or type(first).task_type().toolsets(first.config.task)
    harness = {"id": "null" if tools else "mmrl_chat"}
    for name, field in kind.model_fields.items():
        if isinstance(field.default, AgentConfig):
            own = {"runtime": {"type": "subprocess"}, "harness": harness}
            values[name] = {**own, **(values.get(name) or {})}
    return load_environment(resolve_env_config(values))


def error_of(episode: Any) -> str:
    """Why an episode has no verdict."""
    errors = [*episode.errors, *(e for trace in episode.traces for e in trace.errors)]
    return "; ".join(f"{e.type}: {e.message}" for e in errors[:2]) or "it is not ok"


async def main(stream: Any, settings: dict[str, Any]) -> None:
    from verifiers.v1.clients import EvalClientConfig, ModelContext

    world = environment(settings)
    sampling = settings.get("sampling") or {}
    left = iter(world.taskset)
    tasks: list[Any] = []

    def task_of(index: int) -> Any:
        while len(tasks) <= index:
            tasks.append(next(left))
        return tasks[index]

    async def play(order: dict[str, Any], tell: Tell) -> float:
        task = task_of(order["index"])
        tell(task.data.model_dump(mode="json", exclude_defaults=True, exclude={"prompt"}))
        client = EvalClientConfig(base_url=order["url"], api_key_var=NO_KEY)
        context = ModelContext(model=order["model"], client=client, sampling=sampling)
        episode = await world.run_episode(task, context)
        seats = [trace for trace in episode.traces if trace.agent.trainable]
        if not episode.ok or not seats:
            raise RuntimeError(error_of(episode))
        return float(sum(trace.reward for trace in seats) / len(seats))

    count = sum(1 for _ in world.taskset) if world.taskset.bounded else None
    async with world.serving():
        await serve(stream, play, count)


if __name__ == "__main__":
    output = own_output()
    try:
        asyncio.run(main(output, json.loads(sys.argv[1])))
    except Exception as error:
        fail(output, error)

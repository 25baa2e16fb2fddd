"""The card of an exported model: what it was trained on, how, what that brought; and its push."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from mmrl.errors import ConfigError, TrainingError, one_line
from mmrl.runlog.claim import CONFIG
from mmrl.train import checkpoint

CARD = "README.md"


def write_card(source: Path, out: Path) -> Path:
    """Write `README.md` into an exported folder, from the run that `source` is or lies in.

    It names the base, task, data and algorithm, the steps made, held-out results with their
    intervals, and ends with the configuration. Raises ConfigError without a run.
    """
    run = next((p for p in (source, *source.parents[:2]) if (p / CONFIG).is_file()), None)
    if run is None:
        raise ConfigError(f"{source} lies in no run's folder, so there is nothing to put on a card")
    text = (run / CONFIG).read_text(encoding="utf-8")
    config: Mapping[str, Any] = yaml.safe_load(text)
    name = config["algorithm"].get("name", "grpo")
    path = str(config["model"]["path"])
    head: dict[str, Any] = {
        "library_name": "transformers",
        "tags": ["mmrl", "reinforcement-learning", name],
    }
    if not Path(path).exists() and ":" not in path:  # a name of the hub, no folder of this machine
        head["base_model"] = path
    page = out / CARD
    lines = ["---", yaml.safe_dump(head, sort_keys=False).strip(), "---", ""]
    lines += [*_body(run, source, config, name, path), "```yaml", text.rstrip(), "```", ""]
    page.write_text("\n".join(lines), encoding="utf-8")
    return page


def _body(
    run: Path, source: Path, config: Mapping[str, Any], algorithm: str, base: str
) -> Iterator[str]:
    tasks = ", ".join(f"`{data['task']}`" for data in config["data"])
    yield f"# {Path(base).name or base}, trained with {algorithm}"
    yield ""
    yield f"Fine-tuned from `{Path(base).name or base}` by mmrl with `{algorithm}` on {tasks}."
    found = checkpoint.latest(run)
    if found is not None:
        step = found.step if source == run else source.name.removeprefix("step_")
        made = ", ".join(f"{k} {v}" for k, v in found.state().get("versions", {}).items())
        yield f"Weights after step {step}; {made}."
    yield ""
    yield from _results(run)
    yield "## Configuration"
    yield ""


def _results(run: Path) -> Iterator[str]:
    """The held-out results of a run, before and after."""
    rows = []
    for when in ("before", "after"):
        file = run / f"eval_{when}.json"
        if file.is_file():
            result = json.loads(file.read_text(encoding="utf-8"))
            rows.append((when, result))
    if not rows:
        return
    yield "| held out | metric | 95 % interval | records |"
    yield "|---|---|---|---|"
    for when, result in rows:
        named = result.get("metric_name", "metric")
        interval = f"{result['low']:.3f} to {result['high']:.3f}"
        yield f"| {when} | {named} {result['metric']:.3f} | {interval} | {result['records']} |"
    yield ""


def push(folder: Path, name: str, *, public: bool = False) -> str:
    """Upload an exported folder to the hub as OWNER/NAME; returns its address.

    The repository is made if need be, private unless `public`. Raises TrainingError, with the hub's
    reason, where it refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        made = api.create_repo(name, private=not public, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="mmrl export")
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise TrainingError(f"{name} was not pushed: {one_line(error)}") from error
    return str(made)

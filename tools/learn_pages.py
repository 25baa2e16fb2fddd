"""Does a model learn to operate pages in a real browser? GRPO, GiGPO and ARPO on two pages.

    python tools/learn_pages.py --out runs/pages --write docs/episodes.md

needs a Chromium. Records the pages once. A tiny Qwen2.5-VL, which knows digits and boxes, is
trained supervised along the oracle's way, for each page, up to the first checkpoint that says a
share of the validation seeds right (the second page's goes on from the first's); from there by each
algorithm with each seed. Prints and writes held-out success before and after, greedy, and what is
left of the first seed's once every screen is shown blank. All of a page's runs draw from its first
TASKS records, so that tasks come again. What is already there is not repeated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from learning_runs import ready, train
from make_modality_models import build, qwen2_5_vl

from mmrl.types import Media, Text


class Start(NamedTuple):
    """The share of validation seeds that a page's start says right, and where its runs clip."""

    right: float
    max_grad_norm: float


# Of the second page one step of the supervised run makes 78% of 28%: it starts before that. Clipped
# at 1, as the first page's are, one batch undid a run of it (GiGPO, seed 0, step 29).
PAGES: Mapping[str, Start] = {"name_colours": Start(0.6, 1.0), "follow_shape": Start(0.25, 0.3)}
TURNS = 3
"""Of an episode: one more than an oracle takes."""
ALGORITHMS: Mapping[str, Mapping[str, Any]] = {
    "grpo": {},
    "gigpo": {},
    "arpo": {"part": "done"},
}
SIZES = {"train": 240, "validation": 40, "test": 60}
TASKS, EVERY, WRITTEN = 64, 5, 40
HEAD = (
    "| page | algorithm | seed | before | after | screens blank | seconds |\n"
    "|---|---|---|---|---|---|---|"
)
BEGIN, END = "<!-- pages learnt -->", "<!-- end of pages learnt -->"


def record(out: Path, page: str) -> Path:
    """The folder with a page's records, written once."""
    from mmrl.data_recipes import web_pages

    folder = out / "data" / page
    if not (folder / "tasks.jsonl").is_file():
        web_pages.build(None, folder, pages=page, **SIZES)
        lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / "tasks.jsonl").write_text("".join(lines[:TASKS]), encoding="utf-8")
    return folder


def untrained(out: Path, folders: Sequence[Path]) -> Path:
    """A model whose words are those of the pages' own questions and answers."""
    from mmrl.scoring.tasks import example_answer, load_task

    saved = out / "untrained"
    if not saved.is_dir():
        task, corpus = load_task("web_page"), ["You are a helpful assistant. system\n user\n"]
        for folder in folders:
            for sample in map(task.ask, task.records(folder / "train.jsonl")):
                corpus += [part.text for part in sample.parts if isinstance(part, Text)]
                corpus.append(task.target(sample, example_answer(sample)))
        for part in build(lambda: qwen2_5_vl(corpus), 0):
            part.save_pretrained(saved)
    return saved


def config(folder: Path, run: Path, model: Path, seed: int) -> dict[str, Any]:
    """What all runs on a page share."""
    return {
        "run": str(run),
        "seed": seed,
        "model": {"path": str(model), "max_prompt_tokens": 1500},
        "data": {
            "task": "web_page",
            "path": str(folder / "train.jsonl"),
            "eval_path": str(folder / "validation.jsonl"),
            "params": {"turns": TURNS},
        },
        "rollout": {
            "max_new_tokens": WRITTEN * TURNS,
            "max_turn_tokens": WRITTEN,
            "max_environment_tokens": 400,
            "scoring_workers": 1,
            "scoring_timeout_seconds": 60,
        },
    }


def start(folder: Path, run: Path, model: Path, steps: int) -> Path:
    """The first checkpoint of a page's supervised run that is as good as a start is to be."""
    phase = {
        **config(folder, run, model, 0),
        "optimizer": {"learning_rate": 1.0e-3, "warmup_steps": 20},
        "trainer": {"prompts_per_step": 16, "write_rollouts_every": 20},
    }
    return ready(phase, PAGES[folder.name].right, steps, EVERY).path


def learn(folder: Path, run: Path, model: Path, name: str, seed: int, steps: int) -> dict[str, Any]:
    """The result of one algorithm with one seed."""
    values = config(folder, run, model, seed)
    clip = PAGES[folder.name].max_grad_norm
    test, tasks = folder / "test.jsonl", folder / "tasks.jsonl"
    return train(
        {
            **values,
            "data": {**values["data"], "path": str(tasks), "eval_path": str(test)},
            "algorithm": {
                "name": name,
                "group_size": 8,
                "updates": {"mini_batches": 2},
                **ALGORITHMS[name],
            },
            "rollout": {**values["rollout"], "temperature": 0.8},
            "optimizer": {"learning_rate": 2.0e-4, "warmup_steps": 4, "max_grad_norm": clip},
            "trainer": {"steps": steps, "prompts_per_step": 8, "write_rollouts_every": 5},
        }
    )


def blank(media: Media) -> Media:
    """A white screen in the place of what is seen."""
    return replace(media, array=np.full_like(media.array, 255), hash="blank")


def blind(run: Path) -> float:
    """Held-out success of a run's last weights while every screen is blank; measured once."""
    from mmrl.config import load_config
    from mmrl.data.samples import load_samples
    from mmrl.engines.engine import Sampling
    from mmrl.engines.hf import HFEngine
    from mmrl.evaluate.ask import evaluate
    from mmrl.policy.encoder import Encoder
    from mmrl.policy.policy import load_policy
    from mmrl.rollout.episode import Episodes
    from mmrl.scoring.living import Living
    from mmrl.scoring.pool import Scorer, TaskSpec
    from mmrl.scoring.tasks import load_task
    from mmrl.train import checkpoint

    found = run / "blind.json"
    if not found.is_file():
        made = load_config(run / "config.yaml")
        (data,), trained, rollout = made.data, checkpoint.latest(run), made.rollout
        assert data.eval_path is not None and trained is not None, "the run is done"
        task = load_task(data.task, data.params)
        samples = load_samples(task, data.eval_path, data.task, lambda *_: None)
        policy = load_policy(made.model.model_copy(update={"path": str(trained.path)}))
        shown = policy.family.encode_medium
        policy.family.encode_medium = lambda media: shown(blank(media))  # type: ignore[method-assign]
        encoder = Encoder(policy.family)
        spec = {data.task: TaskSpec(data.task, data.params)}
        workers = Scorer(spec, rollout.scoring_workers, rollout.scoring_timeout_seconds)
        living = Living(workers, {data.task: task})
        limits = rollout.max_turn_tokens, rollout.max_environment_tokens
        engine = Episodes(HFEngine(policy), living, encoder, *limits)
        try:
            greedy = Sampling(rollout.max_new_tokens, temperature=0.0)
            metric = evaluate(samples, task, encoder, engine, living, greedy).metric
        finally:
            living.close()
        found.write_text(json.dumps(metric), encoding="utf-8")
    return float(json.loads(found.read_text(encoding="utf-8")))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Every run's line, and under each algorithm's on a page their mean."""
    lines = [HEAD]
    for page, name in dict.fromkeys((row["page"], row["algorithm"]) for row in rows):
        own = [row for row in rows if (row["page"], row["algorithm"]) == (page, name)]
        lines += [line(page, name, f"{row['seed']}", row) for row in own]
        means = {key: float(np.mean([row[key] for row in own])) for key in FIGURES}
        lines.append(line(f"**{page}**", f"**{name}**", "mean", means))
    return "\n".join(lines)


FIGURES = ("before", "after", "seconds")


def line(page: str, name: str, seed: str, row: Mapping[str, Any]) -> str:
    blank = f"{row['blind']:.1%}" if row.get("blind") is not None else ""
    shares = (f"{row['before']:.1%}", f"{row['after']:.1%}", blank)
    return "| " + " | ".join((page, name, seed, *shares, f"{row['seconds']:.0f}")) + " |"


def written(text: str, made: str) -> str:
    """A document's text with a table between the marks."""
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise SystemExit(f"the document has no {BEGIN} and {END} in this order")
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/pages"))
    parser.add_argument("--pages", nargs="+", choices=PAGES, default=list(PAGES))
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--sft-steps", type=int, default=300)
    parser.add_argument("--write", type=Path, help="document that gets the table")
    args = parser.parse_args()
    folders = {page: record(args.out, page) for page in PAGES}
    model, rows = untrained(args.out, list(folders.values())), []
    last = max(map(list(PAGES).index, args.pages))
    for page, folder in list(folders.items())[: last + 1]:
        model = start(folder, args.out / f"{page}-sft", model, args.sft_steps)
        if page not in args.pages:
            continue
        for name in args.algorithms:
            for seed in args.seeds:
                run = args.out / f"{page}-{name}-{seed}"
                found = learn(folder, run, model, name, seed, args.steps)
                shown = blind(run) if seed == args.seeds[0] else None
                rows.append(
                    {**found, "page": page, "algorithm": name, "seed": seed, "blind": shown}
                )
                print(line(page, name, f"{seed}", rows[-1]), flush=True)
                if args.write:
                    text = args.write.read_text(encoding="utf-8")
                    args.write.write_text(written(text, table(rows)), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()

"""Everything that only a GPU can show, in one command: `python tools/gpu_check.py --out DIR`.

Runs the checks below one after the other, each in a process of its own, and writes DIR/check.json
and DIR/check.log. Ends with code 1 if one failed; a check whose package or device is not there is
skipped, and says so. `--device cpu` runs what a CPU can (that is how this file is tested).

shared_prefix     shared rows equal plain ones: float32 closely, bfloat16 as well as plain ones do
sampled_logprobs  what the engine says of its samples is what the trainer computes
learning          a short quickstart run raises held-out accuracy
step_time         seconds and peak memory of a training step over sizes and types
memory            what `mmrl doctor` predicts for an update, beside what the device held
adapters          LoRA, and QLoRA where bitsandbytes is there, make a step
deepspeed         ZeRO-2, ZeRO-3 and both with CPU offload make the step that one process makes
vllm              a run with vLLM passes its parity gate
ahead             a run that rolls out two steps ahead on a copy passes it after every step
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TINY = "asset:tiny_qwen2_5_vl"
TIME_LIMIT_SECONDS = 1800


@dataclass(frozen=True)
class Setting:
    """What the checks are told: where to write, on what, and how much."""

    out: Path
    device: str
    model: str
    steps: int

    @property
    def cpu(self) -> bool:
        return self.device == "cpu"


class Skipped(Exception):
    """A check that cannot be made here, with the reason."""


def shared_prefix(setting: Setting) -> dict[str, Any]:
    import gpu_numbers

    return gpu_numbers.shared_prefix(setting.model)


def sampled_logprobs(setting: Setting) -> dict[str, Any]:
    import gpu_numbers

    return gpu_numbers.sampled_logprobs(setting.model)


def learning(setting: Setting) -> dict[str, Any]:
    """The quickstart, shortened; it must gain five points at least."""
    result, _ = train(setting, "learning", f"trainer.steps={setting.steps}")
    gain = result["after"] - result["before"]
    return {"passed": gain >= 0.05, "figures": result, "limits": {"gain": 0.05}}


def step_time(setting: Setting) -> dict[str, Any]:
    """Nothing can fail here but the step itself."""
    sizes = [(112, 4, 16)] if setting.cpu else [(224, 8, 64), (448, 8, 64), (896, 8, 256)]
    figures = {}
    for pixels, group, new_tokens in sizes:
        for dtype in ("float32",) if setting.cpu else ("float32", "bfloat16"):
            file = setting.out / f"step_{pixels}_{dtype}.json"
            command = [str(ROOT / "tools" / "bench_step.py"), "--peer", "none", "--json", str(file)]
            command += ["--pixels", str(pixels), "--group", str(group), "--dtype", dtype]
            command += ["--new-tokens", str(new_tokens), "--repeats", "2" if setting.cpu else "5"]
            command += ["--warmup", "1" if setting.cpu else "2"]
            run(command)
            figures[file.stem] = json.loads(file.read_text())["results"]["mmrl"]
    return {"passed": True, "figures": figures}


def memory(setting: Setting) -> dict[str, Any]:
    """The peak of a quickstart run's own metrics; the plan must be within a factor of two."""
    if setting.cpu:
        raise Skipped("a CPU does not say what its tensors held at most")
    from mmrl.config import load_config
    from mmrl.doctor.counts import count
    from mmrl.doctor.memory import plan
    from mmrl.doctor.shape import measure

    overrides = ["trainer.steps=3", "rollout.max_sequences=128"]
    _, metrics = train(setting, "memory", *overrides)
    config = load_config(ROOT / "configs" / "quickstart.yaml", overrides)
    shape = measure(config)
    planned = plan(config, shape, count(config, shape.towers), processes=1)
    held = max(row["memory/cuda_peak"] for row in metrics[1:])  # the first has the load in it
    figures = {"planned_gib": planned.peak / 2**30, "held_gib": held / 2**10}
    ratio = figures["planned_gib"] / figures["held_gib"]
    return {"passed": 0.5 < ratio < 2, "figures": {**figures, "ratio": ratio}}


def adapters(setting: Setting) -> dict[str, Any]:
    needs("peft")
    figures = {}
    kinds = ["none"] + ["nf4"] * (importlib.util.find_spec("bitsandbytes") is not None)
    for kind in kinds:
        lora = f"model.lora={{rank: 4, quantize: {kind}}}"
        dtype = "float32" if setting.cpu else "bfloat16"
        _, metrics = train(
            setting, f"adapters_{kind}", lora, f"model.dtype={dtype}", "trainer.steps=2"
        )
        figures[kind] = [row["train/grad_norm"] for row in metrics]
    return {
        "passed": all(norm > 0 for norms in figures.values() for norm in norms),
        "figures": figures,
    }


def deepspeed(setting: Setting) -> dict[str, Any]:
    """One process under ZeRO against the local backend: the same first gradient and loss."""
    needs("deepspeed")
    shared = ("trainer.steps=1", "algorithm.kl_coefficient=0.02")
    _, (wanted,) = train(setting, "zero_local", *shared)
    figures = {"local": wanted["train/grad_norm"]}
    for name in ("zero2", "zero3", "zero2_offload", "zero3_offload"):
        file = ROOT / "configs" / "deepspeed" / f"{name}.json"
        overrides = ("trainer.backend=deepspeed", f"trainer.deepspeed={file}")
        _, (row,) = train(setting, name, *shared, *overrides)
        figures[name] = row["train/grad_norm"]
    apart = max(abs(norm / figures["local"] - 1) for norm in figures.values())
    return {"passed": apart < 1e-3, "figures": {**figures, "apart": apart}}


def vllm(setting: Setting) -> dict[str, Any]:
    needs("vllm")
    return gated(setting, "vllm", "trainer.steps=2")


def ahead(setting: Setting) -> dict[str, Any]:
    return gated(setting, "hf_copy", "rollout.max_staleness=2", "trainer.steps=5")


def gated(setting: Setting, engine: str, *overrides: str) -> dict[str, Any]:
    """The run's own gate, in float32 and, on a GPU, in bfloat16."""
    figures = {}
    for dtype in ("float32",) if setting.cpu else ("float32", "bfloat16"):
        chosen = (f"rollout.engine={engine}", "rollout.parity_every=1", f"model.dtype={dtype}")
        _, metrics = train(setting, f"{engine}_{dtype}", *chosen, *overrides)
        names = [name for name in metrics[-1] if name.startswith("parity/")]
        figures[dtype] = {name: metrics[-1][name] for name in names}
    return {"passed": all(figures.values()), "figures": figures}


CHECKS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    check.__name__: check
    for check in (
        shared_prefix,
        sampled_logprobs,
        learning,
        step_time,
        memory,
        adapters,
        deepspeed,
        vllm,
        ahead,
    )
}


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise Skipped(f"{package} is not installed")


def train(
    setting: Setting, name: str, *overrides: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Carry a quickstart run out in a process of its own; its result and its metrics."""
    folder = setting.out / name
    config = str(ROOT / "configs" / "quickstart.yaml")
    # Two evaluations of 300 records cost more than a short run's steps.
    quick = () if name == "learning" else ("data.eval_path=null",)
    run(["-m", "mmrl.cli", "train", config, f"run={folder}", *quick, *overrides, "--overwrite"])
    result = json.loads((folder / "result.json").read_text())
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return result, [json.loads(line) for line in lines]


def run(command: Sequence[str]) -> None:
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def about() -> dict[str, Any]:
    """What the figures depend on."""
    import torch

    from mmrl.doctor import packages, placement

    return {
        "packages": packages.versions(),
        "conflicts": packages.conflicts(),
        "devices": placement.devices(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def carry_out(name: str, setting: Setting) -> dict[str, Any]:
    """One check in this process; what it found, or why not."""
    started = time.monotonic()
    try:
        found = CHECKS[name](setting)
        status = {"status": "passed" if found.pop("passed") else "failed"}
    except Skipped as reason:
        found, status = {"why": str(reason)}, {"status": "skipped"}
    except Exception as error:  # a check that breaks must not hide the others
        found, status = {"why": f"{type(error).__name__}: {error}"}, {"status": "failed"}
    return {**status, "seconds": round(time.monotonic() - started, 1), **found}


def start(name: str, arguments: Sequence[str], setting: Setting, log: Any) -> dict[str, Any]:
    """Carry a check out in a process of its own: a broken CUDA context ends with it."""
    file = setting.out / f"{name}.json"
    file.unlink(missing_ok=True)
    hidden = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"} if setting.cpu else {}
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    roots = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, __file__, *arguments, "--only", name]
    try:
        done = subprocess.run(
            command,
            stdout=log,
            stderr=log,
            timeout=TIME_LIMIT_SECONDS,
            env={**os.environ, **hidden, "PATH": paths, "PYTHONPATH": roots},
        )
    except subprocess.TimeoutExpired:
        return {"status": "failed", "why": f"not done after {TIME_LIMIT_SECONDS} s"}
    if not file.is_file():
        return {"status": "failed", "why": f"its process ended with code {done.returncode}"}
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def parse() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for all that is written")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--model",
        default=TINY,
        help="for the numerical checks: a folder of a Qwen2-VL or Qwen2.5-VL model",
    )
    parser.add_argument("--steps", type=int, default=60, help="of the learning run")
    parser.add_argument("--checks", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--only", choices=CHECKS, help=argparse.SUPPRESS)
    found = parser.parse_args()
    told = ["--out", str(found.out), "--device", found.device]
    return found, [*told, "--model", found.model, "--steps", str(found.steps)]


def main() -> int:
    args, told = parse()
    setting = Setting(args.out.resolve(), args.device, args.model, args.steps)
    setting.out.mkdir(parents=True, exist_ok=True)
    if args.only:
        found = carry_out(args.only, setting)
        (setting.out / f"{args.only}.json").write_text(json.dumps(found))
        return 0
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: --device cpu runs what a CPU can", file=sys.stderr)
        return 2
    results = {}
    with (setting.out / "check.log").open("w") as log:
        for name in args.checks:
            print(f"== {name}", file=log, flush=True)
            results[name] = start(name, told, setting, log)
            print(f"{results[name]['status']:8} {name}  {results[name].get('why', '')}", flush=True)
            (setting.out / f"{name}.json").unlink(missing_ok=True)
    report = {"device": args.device, "about": about(), "checks": results}
    (setting.out / "check.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"{setting.out / 'check.json'} and check.log")
    return int(any(result["status"] == "failed" for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())

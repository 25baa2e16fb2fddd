"""The two sides of bench_step.py: each runs in a process of its own, one step when told to.

A side takes the workload as its argument and then speaks JSON lines: it says what it is when it
is ready, and answers every line it gets with the measurements of one training step.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmrl.policy.policy import Policy
    from mmrl.train.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
QUESTION = "How many handwritten digits are in the picture? Answer with a number."
TEMPERATURE = 1.0


@dataclass(frozen=True)
class Workload:
    """What both sides do in a step; `folder` holds the model and the images."""

    folder: str
    images: int
    prompts: int
    group: int
    new_tokens: int
    pixels: int
    kl: float
    dtype: str
    learning_rate: float
    seed: int
    peer_micro_batch: int
    kept: int | None = None

    @property
    def model(self) -> str:
        return str(Path(self.folder) / "model")

    def image(self, index: int) -> Path:
        return Path(self.folder) / f"{index}.png"


def build(workload: Workload) -> None:
    """Write the model, its processor and the images that both sides load."""
    import numpy as np
    import torch
    from make_tiny_model import build_config, build_processor, build_tokenizer
    from PIL import Image
    from transformers import Qwen2_5_VLForConditionalGeneration

    processor = build_processor(build_tokenizer())
    budget = {"shortest_edge": 28 * 28, "longest_edge": max(workload.pixels, 28) ** 2}
    processor.image_processor.size = budget
    config = build_config(processor.tokenizer)
    text, vision = config.text_config, config.vision_config
    # The proportions of Qwen2-VL-2B: the tower has half as many parameters as the language layers.
    text.hidden_size, text.intermediate_size = vision.out_hidden_size, _ = 256, 1536
    text.num_hidden_layers, text.num_attention_heads, text.num_key_value_heads = 4, 4, 1
    text.layer_types = None
    text.rope_parameters["mrope_section"] = [8, 12, 12]
    vision.depth, vision.hidden_size, vision.intermediate_size, vision.num_heads = 4, 192, 512, 3
    vision.window_size, vision.fullatt_block_indexes = 112, [3]
    torch.manual_seed(workload.seed)
    model = Qwen2_5_VLForConditionalGeneration(type(config)(**config.to_dict()))
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(workload.model)
    processor.save_pretrained(workload.model)
    rng = np.random.default_rng(workload.seed)
    for index in range(workload.images):
        pixels = rng.integers(0, 256, (workload.pixels, workload.pixels, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(workload.image(index))


def reward(text: str) -> float:
    """A cheap reward that differs between almost all answers."""
    return zlib.crc32(text.encode()) % 1000 / 999


@dataclass
class Meter:
    """Measures one step: seconds, memory, and what went through tower and language layers.

    That is counted in the first step alone: hooks make every other one slower. `_back` are those of
    the patches and tokens whose passes gradients are taken of.
    """

    counts: Counter[str]
    started: float = 0.0
    started_cpu: float = 0.0
    hooks: list[Any] = field(default_factory=list)

    def watch(self, model: Any) -> None:
        """Count patches through the tower and tokens through the language layers."""
        import torch

        def counted(kind: str, unit: str, size: int) -> None:
            self.counts[f"{kind}_calls"] += 1
            self.counts[f"{kind}_{unit}"] += size
            self.counts[f"{kind}_back"] += size * torch.is_grad_enabled()

        def tower(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            counted("tower", "patches", len(args[0] if args else kwargs["hidden_states"]))

        def layers(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            rows, length, _ = kwargs["inputs_embeds"].shape
            counted("language", "tokens", rows * length)

        self.hooks += [
            model.model.visual.register_forward_pre_hook(tower, with_kwargs=True),
            model.model.language_model.register_forward_pre_hook(layers, with_kwargs=True),
        ]

    def start(self) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self.started, self.started_cpu = time.perf_counter(), time.process_time()

    def stop(self, rollout_seconds: float) -> dict[str, Any]:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self.started
        for hook in self.hooks:
            hook.remove()
        measured = {
            "step": seconds,
            "rollout": rollout_seconds,
            "update": seconds - rollout_seconds,
            "cpu": time.process_time() - self.started_cpu,
            "peak_mib": peak_mib(),
            "work": dict(self.counts),
        }
        if torch.cuda.is_available():
            measured["cuda_peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
        return measured


def peak_mib() -> float:
    """This process's peak resident memory; ru_maxrss would count what forked it too."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


class Turns:
    """The side's end of the conversation: wait for a turn, answer it."""

    def __init__(self, answers: IO[str]) -> None:
        self._answers = answers

    def say(self, message: dict[str, Any]) -> None:
        self._answers.write(json.dumps(message) + "\n")
        self._answers.flush()

    def wait(self) -> bool:
        """Block until the next turn; False if there is none."""
        return sys.stdin.readline() == "step\n"


@contextmanager
def adding_seconds(to: list[float]) -> Iterator[None]:
    import torch

    start = time.perf_counter()
    yield
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    to.append(time.perf_counter() - start)


def mmrl_trainer(workload: Workload) -> tuple[Trainer, Policy]:
    """The whole trainer; only scoring is replaced, by the reward in-process."""
    from mmrl.algorithms.compose import compose
    from mmrl.backend.local import LocalBackend
    from mmrl.config import OptimizerConfig, TrainerConfig
    from mmrl.data.stream import PromptStream
    from mmrl.engines.hf import HFEngine
    from mmrl.engines.targets import written
    from mmrl.model_config import ModelConfig
    from mmrl.policy.encoder import Encoder
    from mmrl.policy.packing import default_budget
    from mmrl.policy.policy import load_policy
    from mmrl.policy.weights import weights_of
    from mmrl.rollout.rollouts import Rollouts
    from mmrl.rollout_config import RolloutConfig
    from mmrl.runlog.quarantine import Quarantine
    from mmrl.train.batches import Asker, OnPolicy
    from mmrl.train.keeping import SHARE
    from mmrl.train.learner import Learner
    from mmrl.train.trainer import Trainer
    from mmrl.types import MediaRef, Sample, Score, Text

    class Scorer:
        def score(self, jobs: Any, moment: Any = None) -> list[Score]:
            values = [reward(job.answer.text) for job in jobs]
            return [Score({"crc": value}, value, reward=value) for value in values]

    samples = [
        Sample(str(i), "bench", (MediaRef("image", workload.image(i)), Text(QUESTION)), gold=None)
        for i in range(workload.images)
    ]
    policy = load_policy(ModelConfig(path=workload.model, dtype=workload.dtype))
    # The end is never sampled, so that every answer has exactly `new_tokens` tokens.
    policy.family.banned_ids = (*policy.family.banned_ids, *policy.family.end_ids)
    algorithm = compose(
        {"group_size": workload.group, "kl_coefficient": workload.kl, "numerics": "trl"}
    )
    budget = default_budget(policy.device)
    optimizer = OptimizerConfig(learning_rate=workload.learning_rate)
    rollout = RolloutConfig(max_new_tokens=workload.new_tokens, temperature=TEMPERATURE)
    config = TrainerConfig(steps=10**6, prompts_per_step=workload.prompts)
    learner = Learner(
        policy,
        algorithm,
        LocalBackend(policy.model, optimizer, config.steps),
        temperature=TEMPERATURE,
        tokens_per_micro_batch=budget,
        kept_tokens=int(budget * SHARE) if workload.kept is None else workload.kept,
    )
    rollouts = Rollouts(HFEngine(policy, rollout.max_sequences), Scorer(), rollout)
    asker = Asker(
        algorithm=algorithm,
        encoder=Encoder(policy.family),
        stream=PromptStream([(samples, 1.0, False)], workload.seed),
        quarantine=Quarantine(Path(workload.folder)),
        config=config,
        seed=workload.seed,
        state={},
        change=lambda sample, options: sample,
        completed=lambda prompt, text: written(policy, prompt, text, workload.new_tokens, "text"),
    )
    trainer = Trainer(
        algorithm,
        learner,
        rollouts,
        asker,
        OnPolicy(asker, rollouts),
        config,
        weights=lambda step: weights_of(policy, step),
    )
    return trainer, policy


def run_mmrl(workload: Workload, turns: Turns) -> None:
    """Train with `mmrl.train.trainer.Trainer`."""
    import transformers

    trainer, policy = mmrl_trainer(workload)
    meter = Meter(Counter())
    meter.watch(policy.model)
    if trainer.learner._reference is not None:
        meter.watch(trainer.learner._reference.only().model)
    turns.say(_about(policy.device, {"transformers": transformers.__version__}))
    step = 0
    while turns.wait():
        step += 1
        meter.start()
        result = trainer.step(step)
        assert result is not None, "the stream does not end"
        measured = meter.stop(result.seconds["time/encode"] + result.seconds["time/rollout"])
        answers = [r for group in result.groups for r in group.responses]
        measured["prompt_ids"] = [g.prompt.ids.tolist() for g in result.groups]
        measured["answer_lengths"] = [len(r.ids) for r in answers]
        measured["rewards"] = [float(r) for g in result.groups for r in g.rewards]
        measured["entropy"] = result.updates.entropy
        turns.say(measured)


def trl_arguments(workload: Workload, processor: Any) -> Any:
    """GRPOConfig for the same work: constant lengths, and no placeholder sampled."""
    import torch
    from trl import GRPOConfig

    token_id = processor.tokenizer.convert_tokens_to_ids
    unwanted = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    sequences = workload.prompts * workload.group
    micro_batch = workload.peer_micro_batch or sequences
    on_gpu = torch.cuda.is_available()
    return GRPOConfig(
        output_dir=str(Path(workload.folder) / "trl"),
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=sequences // micro_batch,
        num_generations=workload.group,
        max_completion_length=workload.new_tokens,
        temperature=TEMPERATURE,
        # Same lengths on both sides; and without the ban, sampling a placeholder ends the run.
        generation_kwargs={
            "min_new_tokens": workload.new_tokens,
            "suppress_tokens": [token_id(token) for token in unwanted],
        },
        beta=workload.kl,
        loss_type="grpo",
        learning_rate=workload.learning_rate,
        lr_scheduler_type="constant",
        max_steps=10**6,
        seed=workload.seed,
        shuffle_dataset=False,
        bf16=workload.dtype == "bfloat16" and on_gpu,
        gradient_checkpointing=False,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        model_init_kwargs={"dtype": workload.dtype},
    )


def trl_data(workload: Workload) -> Any:
    """The images and the question as TRL's trainer takes them."""
    from datasets import Dataset, Image

    rows = {
        "prompt": [[{"role": "user", "content": QUESTION}]] * workload.images,
        "image": [str(workload.image(i)) for i in range(workload.images)],
    }
    return Dataset.from_dict(rows).cast_column("image", Image())


def run_trl(workload: Workload, turns: Turns) -> None:
    """Train with TRL's GRPOTrainer, transformers generation, set up for this machine."""
    import torch
    import transformers
    import trl
    from transformers import AutoProcessor, TrainerCallback
    from trl import GRPOTrainer

    transformers.utils.logging.disable_progress_bar()
    processor = AutoProcessor.from_pretrained(workload.model)
    seen: dict[str, Any] = {}
    rollout_seconds: list[float] = []
    meter = Meter(Counter())

    def rewards(completions: list[Any], **columns: Any) -> list[float]:
        seen["rewards"] = [reward(completion[0]["content"]) for completion in completions]
        return list(seen["rewards"])

    class Timed(GRPOTrainer):  # type: ignore[misc]
        def _generate(self, prompts: Any) -> Any:
            with adding_seconds(rollout_seconds):
                out = super()._generate(prompts)
            seen["prompt_ids"], seen["answer_lengths"] = out[0], [len(ids) for ids in out[1]]
            return out

    class Stepwise(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if not turns.wait():
                sys.exit(0)
            meter.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            measured = meter.stop(sum(rollout_seconds))
            rollout_seconds.clear()
            turns.say(measured | seen | {"entropy": trainer._metrics["train"]["entropy"][-1]})
            trainer._metrics["train"].clear()
            if not turns.wait():
                sys.exit(0)
            meter.start()

    trainer = Timed(
        model=workload.model,
        reward_funcs=rewards,
        args=trl_arguments(workload, processor),
        train_dataset=trl_data(workload),
        processing_class=processor,
        callbacks=[Stepwise()],
    )
    assert trainer.model.dtype == getattr(torch, workload.dtype)
    meter.watch(trainer.model)
    if trainer.ref_model is not None:
        meter.watch(trainer.ref_model)
    versions = {"transformers": transformers.__version__, "trl": trl.__version__}
    turns.say(_about(trainer.model.device, versions))
    trainer.train()


def _about(device: Any, versions: dict[str, str]) -> dict[str, Any]:
    import torch

    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__, **versions},
        "torch_threads": torch.get_num_threads(),
        "loaded_mib": peak_mib(),
    }


ROLES: dict[str, Callable[[Workload, Turns], None]] = {"mmrl": run_mmrl, "trl": run_trl}


def main() -> None:
    role, workload = sys.argv[1], Workload(**json.loads(sys.argv[2]))
    # Libraries print: what they print goes to stderr, answers keep stdout to themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, str(ROOT))
    if role == "build":
        build(workload)
    else:
        ROLES[role](workload, Turns(answers))


def arguments(role: str, workload: Workload) -> list[str]:
    """The command that starts a side."""
    return [sys.executable, __file__, role, json.dumps(asdict(workload))]


if __name__ == "__main__":
    main()

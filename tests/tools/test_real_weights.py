"""Pretrained parts keep their outputs under other names, and their data and tables are true."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

from mmrl.policy.model_folder import model_folder
from tests.conftest import TINY
from tests.runs import make_digits

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(autouse=True)
def _tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))


def randomised(model: Any) -> Any:
    """No zero biases and unit norms, which would hide a name that went to another's place."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def test_dinov2_under_internvls_names_gives_the_same_outputs() -> None:
    import real_models
    import real_weights

    size = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2}
    config = tf.Dinov2Config(**size, mlp_ratio=2, image_size=70, use_mask_token=False)
    reference = randomised(tf.Dinov2Model(config))
    tower = tf.InternVLVisionModel(
        tf.InternVLVisionConfig(
            **size,
            intermediate_size=48,
            image_size=[56, 56],
            patch_size=[14, 14],
            attention_bias=True,
            use_mean_pooling=False,
        )
    ).eval()
    weights = real_models.at_size(reference, 56)
    tower.load_state_dict(real_weights.to_internvl(weights))
    pictures = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        ours = tower(pictures).last_hidden_state
        theirs = reference(pictures).last_hidden_state
    assert torch.allclose(ours, theirs, atol=1e-5)
    real_models.same("equal", ours, theirs)
    with pytest.raises(AssertionError, match="differ"):
        real_models.same("unequal", ours, theirs * 1.001)


def test_whisper_comes_back_from_ctranslate2s_format() -> None:
    import real_weights

    config = tf.WhisperConfig(
        vocab_size=96,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=40,
        max_source_positions=30,
        max_target_positions=12,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=1,
    )
    model = randomised(tf.WhisperForConditionalGeneration(config)).half()
    wanted = {name: value.float() for name, value in model.state_dict().items()}
    found = real_weights.whisper_state(ctranslate2(wanted, layers=2))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


def ctranslate2(state: dict[str, torch.Tensor], layers: int) -> bytes:
    """The file that CTranslate2's converter writes of a Whisper, written down by hand."""
    variables: dict[str, np.ndarray] = {}

    def put(name: str, *values: torch.Tensor) -> None:
        variables[name] = torch.cat(values).half().numpy()

    def norm(name: str, source: str) -> None:
        put(f"{name}/layer_norm/gamma", state[f"{source}.weight"])
        put(f"{name}/layer_norm/beta", state[f"{source}.bias"])

    def linear(name: str, *sources: str) -> None:
        put(f"{name}/weight", *(state[f"{s}.weight"] for s in sources))
        rows = [state[f"{s}.weight"].shape[0] for s in sources]
        zeros = (torch.zeros(r) for r in rows)
        put(
            f"{name}/bias",
            *(state.get(f"{s}.bias", z) for s, z in zip(sources, zeros, strict=True)),
        )

    for conv in ("conv1", "conv2"):
        put(f"encoder/{conv}/weight", state[f"model.encoder.{conv}.weight"])
        put(f"encoder/{conv}/bias", state[f"model.encoder.{conv}.bias"])
    put("decoder/embeddings/weight", state["model.decoder.embed_tokens.weight"])
    for side in ("encoder", "decoder"):
        owner = f"model.{side}"
        put(f"{side}/position_encodings/encodings", state[f"{owner}.embed_positions.weight"])
        norm(side, f"{owner}.layer_norm")
        for i in range(layers):
            here, there = f"{side}/layer_{i}", f"{owner}.layers.{i}"
            norm(f"{here}/self_attention", f"{there}.self_attn_layer_norm")
            attention = [f"{there}.self_attn.{letter}_proj" for letter in "qkv"]
            linear(f"{here}/self_attention/linear_0", *attention)
            linear(f"{here}/self_attention/linear_1", f"{there}.self_attn.out_proj")
            norm(f"{here}/ffn", f"{there}.final_layer_norm")
            linear(f"{here}/ffn/linear_0", f"{there}.fc1")
            linear(f"{here}/ffn/linear_1", f"{there}.fc2")
            if side == "decoder":
                cross = f"{there}.encoder_attn"
                norm(f"{here}/attention", f"{cross}_layer_norm")
                linear(f"{here}/attention/linear_0", f"{cross}.q_proj")
                linear(f"{here}/attention/linear_1", f"{cross}.k_proj", f"{cross}.v_proj")
                linear(f"{here}/attention/linear_2", f"{cross}.out_proj")
    return _binary({**variables, "encoder/num_heads": np.array(2, np.int16)})


def _binary(variables: dict[str, np.ndarray]) -> bytes:
    types = {"float16": 4, "int16": 2}

    def text(word: str) -> bytes:
        return struct.pack("<H", len(word) + 1) + word.encode() + b"\0"

    out = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, array in variables.items():
        out += text(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        out += struct.pack("<BI", types[array.dtype.name], array.nbytes) + array.tobytes()
    return out + struct.pack("<I", 1) + text("decoder/projection/weight") + text("decoder/x")


def test_garments_are_balanced_and_apart(tmp_path: Path) -> None:
    import real_garments

    source, out = tmp_path / "idx", tmp_path / "out"
    source.mkdir()
    for part, count in (("train", 6_400), ("t10k", 400)):
        labels = np.arange(count, dtype=np.uint8) % 10
        pictures = np.repeat(labels, 28 * 28).tobytes()
        for kind, data, header in (
            ("images-idx3", pictures, 16),
            ("labels-idx1", labels.tobytes(), 8),
        ):
            packed = gzip.compress(bytes(header) + data, compresslevel=1)
            (source / f"{part}-{kind}-ubyte.gz").write_bytes(packed)
    real_garments.write(source, out)
    seen: set[str] = set()
    for name, size in real_garments.SIZES.items():
        rows = [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]
        assert len(rows) == size
        assert {r["label"] for r in rows[:10]} == set(real_garments.NAMES)
        assert seen.isdisjoint(r["image"] for r in rows)
        seen |= {r["image"] for r in rows}
    first = json.loads((out / "test.jsonl").read_text().splitlines()[3])
    from PIL import Image

    assert real_garments.NAMES[Image.open(out / first["image"]).getpixel((0, 0))] == first["label"]


def test_a_prompt_is_on_one_side_in_every_language(tmp_path: Path) -> None:
    import real_speech

    for code in real_speech.LANGUAGES:
        folder = tmp_path / "sounds" / f"{code}_XX_f_Name" / "letters"
        folder.mkdir(parents=True)
        for i in range(40):
            with wave.open(str(folder / f"prompt{i}.wav"), "wb") as sound:
                sound.setparams((1, 2, 8000, 0, "NONE", "none"))
                sound.writeframes(bytes(2 * 8000 * (2 if i % 8 else 5)))  # some are too long
    out = tmp_path / "out"
    real_speech.write(tmp_path / "sounds", out)
    parts = {}
    for name in real_speech.SHARES:
        rows = [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]
        assert [r["answer"] for r in rows[:5]] == list(real_speech.LANGUAGES.values())
        assert len(rows) % 5 == 0 and all((out / r["audio_id"]).is_file() for r in rows)
        parts[name] = {r["id"][3:] for r in rows}
    assert sum(map(len, parts.values())) == len(set().union(*parts.values())) == 35


@pytest.mark.parametrize(
    ("said", "reward"),
    [("coat", 1.0), (" Coat.", 1.0), ("a coat", 0.0), ("coat coat", 0.0), ("", 0.0), ("bag", 0.0)],
)
def test_a_garment_is_named_by_its_name_alone(said: str, reward: float) -> None:
    import real_garments

    assert real_garments.right_name([None], [said], label=["coat"]) == [reward]


def test_the_table_holds_what_the_runs_wrote(tmp_path: Path) -> None:
    from real_runs import Cell, Folder
    from real_vlm import EXPERIMENT

    asked = [Cell("float32"), Cell("float32", seed=1), Cell("bfloat16", shuffled=True)]
    experiment = Folder(tmp_path, EXPERIMENT)
    # Of four records one becomes right by seed 0, two by seed 1.
    for cell, right in zip(asked[:2], (2, 3), strict=True):
        folder = experiment.folder(cell)
        folder.mkdir(parents=True)
        for when, passed in (("before", 1), ("after", right)):
            answers = [{"id": str(i), "metric": float(i < passed)} for i in range(4)]
            found = {"metric": passed / 4, "low": 0.1, "high": 0.9, "records": 4}
            (folder / f"eval_{when}.json").write_text(json.dumps({**found, "answers": answers}))
        rows = [
            {"step": s, "time/step": t, "memory/peak": 100.0 * s, "metric/mean": 0.5}
            for s, t in ((1, 9.0), (2, 2.0), (3, 3.0))
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        (folder / "result.json").write_text(json.dumps({"seconds": 20.0}))
    (experiment.folder(asked[0]) / "cpu.json").write_text('{"cpu_seconds": 7}')
    text = experiment.write_table(asked)
    expected = "| float32 | language model | as scored | 0 | 25.0% [10.0%, 90.0%] | 50.0% "
    assert expected + "[10.0%, 90.0%] | 3.0 | 7 | 300 |" in text
    assert (
        "| float32 | language model | as scored | 2 | 25.0% | 62.5% (50.0% to 75.0%) | +37.5% ["
        in text
    )
    assert "Not run: bfloat16-full-shuffled-0." in text
    assert [row["seed"] for row in json.loads((tmp_path / "results.json").read_text())] == [0, 1]


@pytest.mark.slow
def test_one_command_goes_from_parts_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import real_runs

    folder = model_folder(TINY)

    def assemble(packages: Path) -> tuple[Any, Any]:
        model = tf.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        return model, tf.AutoProcessor.from_pretrained(folder)

    def write(source: Path, out: Path) -> None:
        if out.exists():
            return
        digits = make_digits(tmp_path / "digits") / "digit_count"
        shutil.copy(digits / "train.jsonl", digits / "warm.jsonl")
        out.symlink_to(digits)

    config = tmp_path / "config.yaml"  # JSON is YAML, too
    trainer = {"steps": 2, "prompts_per_step": 2, "eval_every": 1, "checkpoint_every": 1}
    data = {"task": "digit_count", "path": "-"}
    config.write_text(
        json.dumps({"run": "-", "model": {"path": "-"}, "data": data, "trainer": trainer})
    )
    experiment = real_runs.Experiment(
        packages=(),
        assemble=assemble,
        source=tmp_path,
        write=write,
        warm=config,
        grpo=config,
        ready={"digit_count": 0.0},
    )
    cell = real_runs.Cell("bfloat16", shuffled=True, seed=3)
    monkeypatch.setattr(real_runs, "cells", lambda seeds: [cell])
    monkeypatch.setattr("sys.argv", ["real", str(tmp_path / "out")])
    real_runs.carry_out(experiment, "")
    before = (tmp_path / "out" / "table.md").read_text()
    assert "| bfloat16 | language model | shuffled | 3 |" in before and "Not run" not in before
    (found,) = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["steps"] == 2 and found["cpu_seconds"] > 0 and found["memory_mib"] > 0
    resolved = (tmp_path / "out" / "grpo" / cell.name / "config.yaml").read_text()
    assert "warm/checkpoints/step_1\n" in resolved and "reward_control: shuffle" in resolved
    real_runs.carry_out(experiment, "")  # all is there: nothing is repeated
    assert (tmp_path / "out" / "table.md").read_text() == before

"""Pretrained weights out of the files that carry them, under the names transformers gives them."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Weights = dict[str, Tensor]

DINOV2_NAMES = (
    ("attention.attention.query.", "attention.q_proj."),
    ("attention.attention.key.", "attention.k_proj."),
    ("attention.attention.value.", "attention.v_proj."),
    ("attention.output.dense.", "attention.o_proj."),
)
CTRANSLATE2_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
WHISPER_NAMES = (
    (r"^(en|de)coder/", r"model.\1coder."),
    (r"position_encodings/encodings$", "embed_positions.weight"),
    (r"embeddings/weight$", "embed_tokens.weight"),
    (r"layer_(\d+)", r"layers.\1"),
    (r"self_attention/layer_norm/", "self_attn_layer_norm."),
    (r"attention/layer_norm/", "encoder_attn_layer_norm."),
    (r"ffn/layer_norm/", "final_layer_norm."),
    (r"layer_norm/", "layer_norm."),
    (r"self_attention/linear_1/", "self_attn.out_proj."),
    (r"attention/linear_2/", "encoder_attn.out_proj."),
    (r"attention/linear_0/", "encoder_attn.q_proj."),
    (r"ffn/linear_0/", "fc1."),
    (r"ffn/linear_1/", "fc2."),
    (r"gamma$", "weight"),
    (r"beta$", "bias"),
    (r"/", "."),
)


def language_model(folder: Path) -> Any:
    """SmolLM2 in float32, saved weights and all, as if it had never been quantised."""
    from transformers import AutoModelForCausalLM

    file = next(folder.rglob("SmolLM2-135M-Instruct.*.gguf"))
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    model.hf_quantizer = None  # it would refuse to save weights that are plain by now
    del model.config.quantization_config
    return model


def vocabulary(folder: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """SmolLM2's tokens in the order of their ids, and its merges, from the GGUF file itself."""
    from gguf import GGUFReader

    reader = GGUFReader(next(folder.rglob("SmolLM2-135M-Instruct.*.gguf")))
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = reader.fields["tokenizer.ggml.merges"].contents()
    return tokens, [tuple(merge.split(" ")) for merge in merges]


def dinov2(folder: Path) -> Weights:
    """The ViT-S/14 inside the saliency model, under the names of transformers' Dinov2Model."""
    import onnx
    from onnx.numpy_helper import to_array

    graph = onnx.load(next(folder.rglob("vit_s_focus.onnx"))).graph
    arrays = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    # The exporter kept the names of biases and norms; a product's weight is named by its node.
    found = {name: a for name, a in arrays.items() if name.startswith("backbone.")}
    places: dict[str, np.ndarray] = {}
    for node in graph.node:
        constant = next((arrays[i] for i in node.input if i in arrays), None)
        if constant is None or not node.name.startswith("/backbone/"):
            continue
        if node.op_type == "MatMul" and constant.ndim == 2:
            name = node.name.strip("/").removesuffix("/MatMul").replace("/", ".")
            found[f"{name}.weight"] = constant.T
        elif "/embeddings/" in node.name and constant.ndim == 3:
            # What the picture's size decides is made in the graph: the class token's place is
            # put in front of the patches' places, once they have been resized.
            places[node.op_type] = constant
    found["backbone.embeddings.position_embeddings"] = np.concatenate(
        [places["Concat"], places["Reshape"]], axis=1
    )
    return {_dinov2_name(name): torch.tensor(array) for name, array in found.items()}


def backbone_output(folder: Path, pictures: np.ndarray) -> np.ndarray:
    """What the exported graph itself has after the ViT's last norm, by onnx's own evaluator."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(next(folder.rglob("vit_s_focus.onnx")))
    nodes = list(model.graph.node)
    end = next(n.output[0] for n in reversed(nodes) if n.name.startswith("/backbone/layernorm"))
    wanted, kept = {end}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.extend(reversed(kept))
    model.graph.output.append(onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, None))
    (found,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: pictures})
    return np.asarray(found)


def _dinov2_name(name: str) -> str:
    name = name.removeprefix("backbone.")
    for old, new in DINOV2_NAMES:
        name = name.replace(old, new)
    return name


def whisper(folder: Path) -> Weights:
    """Whisper base in float32, under the names of WhisperForConditionalGeneration."""
    parts = sorted(folder.rglob("model.bin.part*"))
    return whisper_state(b"".join(part.read_bytes() for part in parts))


def whisper_state(data: bytes) -> Weights:
    """A Whisper out of a file of CTranslate2's; the output layer is the embedding, as it was."""
    found: Weights = {}
    for name, array in read_ctranslate2(data).items():
        if array.ndim:
            found |= _whisper_names(name, torch.tensor(array).float())
    found["proj_out.weight"] = found["model.decoder.embed_tokens.weight"]
    return found


def read_ctranslate2(data: bytes) -> dict[str, np.ndarray]:
    """The variables of a model file of CTranslate2's binary version 6, aliases left out.

    Little-endian: version, specification, revision, then for each variable its name, shape, type,
    size in bytes and values.
    """
    at = 0

    def number(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{form}", data, at)
        at += struct.calcsize(form)
        return int(value)

    def text() -> str:
        nonlocal at
        length = number("H")
        at += length
        return data[at - length : at].rstrip(b"\0").decode()

    version = number("I")
    assert version == 6, f"CTranslate2's binary version {version}"
    text(), number("I")
    found: dict[str, np.ndarray] = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        kind, size = CTRANSLATE2_TYPES[number("B")], number("I")
        found[name] = np.frombuffer(data[at : at + size], kind).reshape(shape)
        at += size
    return found


def _whisper_names(name: str, value: Tensor) -> Weights:
    """A variable under the names of transformers, fused projections taken apart."""
    fused = {"self_attention/linear_0": "qkv", "attention/linear_1": "kv"}
    for part, letters in fused.items():
        owner, found, kind = name.partition(f"/{part}/")
        if found:
            place = "self_attn" if letters == "qkv" else "encoder_attn"
            names = [f"{_renamed(owner)}.{place}.{letter}_proj.{kind}" for letter in letters]
            pieces = dict(zip(names, value.chunk(len(letters)), strict=True))
            # Whisper's keys have no bias; the fused one holds zeros for it.
            return {n: v for n, v in pieces.items() if not n.endswith("k_proj.bias")}
    return {_renamed(name): value}


def _renamed(name: str) -> str:
    for pattern, new in WHISPER_NAMES:
        name = re.sub(pattern, new, name)
    return name


def to_internvl(weights: Mapping[str, Tensor]) -> Weights:
    """DINOv2's weights under the names of InternVL's tower, whose block it is."""
    names = (
        ("attention.o_proj.", "attention.projection_layer."),
        ("layer_scale1.lambda1", "lambda_1"),
        ("layer_scale2.lambda1", "lambda_2"),
        ("norm1.", "layernorm_before."),
        ("norm2.", "layernorm_after."),
    )
    found: Weights = {}
    for name, value in weights.items():
        for old, new in names:
            name = name.replace(old, new)
        found[name] = value
    return found

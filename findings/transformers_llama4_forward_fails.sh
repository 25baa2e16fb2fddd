#!/usr/bin/env bash
# transformers: Llama 4 with pictures fails on every input in 5.24.0, words alone as well
#
# Packages: transformers 5.24.0, torch 2.14.1 (uv, which takes a cached build). The forward of
# Llama4ForConditionalGeneration hands on `outputs.image_outputs`, but `outputs` are its language model's,
# which have no such field: AttributeError, in training and in `generate`, whether there is a picture or
# not. The language model itself works, and so does the whole one in 5.20.2. A hook on the language model
# that sets the field to None is enough.
# Seen: "language model: torch.Size([1, 5, 64])", "with pictures: 'MoeCausalLMOutputWithPast' object has no
# attribute 'image_outputs'", "with the field: torch.Size([1, 5, 64])"
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"; "$work/v/bin/pip" install -q uv
"$work/v/bin/uv" pip install -q --python "$work/v/bin/python" transformers==5.24.0 torch==2.14.1
cat > "$work/look.py" <<'PY'
import torch
import transformers as tf

text = tf.Llama4TextConfig(
    vocab_size=64, hidden_size=32, intermediate_size=32, intermediate_size_mlp=32, head_dim=8,
    num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, num_local_experts=2,
    pad_token_id=0, bos_token_id=1, eos_token_id=2,
)
vision = tf.Llama4VisionConfig(
    hidden_size=32, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2, image_size=28,
    vision_output_dim=32, projector_input_dim=32, projector_output_dim=32,
)
config = tf.Llama4Config(text_config=text.to_dict(), vision_config=vision.to_dict(), image_token_index=3)
torch.manual_seed(0)
model = tf.Llama4ForConditionalGeneration(config).eval()
ids = torch.arange(5, 10)[None]
with torch.no_grad():
    print("language model:", model.language_model(input_ids=ids).logits.shape)
    try:
        model(input_ids=ids)
    except AttributeError as error:
        print("with pictures:", error)
        assert "image_outputs" in str(error)
    else:
        raise SystemExit("it works")
    model.language_model.register_forward_hook(lambda m, a, out: setattr(out, "image_outputs", None))
    print("with the field:", model(input_ids=ids).logits.shape)
PY
"$work/v/bin/python" "$work/look.py"

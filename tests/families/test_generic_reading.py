"""Types that read pictures beside their text train the log-probs that they decode with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf
from PIL import Image
from torch import Tensor

from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.policy.policy import Policy
from mmrl.policy.shared_prefix import SharedRow
from tests.families import other_types
from tests.families.cases import Case, ask, picture, relative, shared, tone
from tests.families.test_generic_sharing import policy

NEW = 5
START = "<bos>"
# An encoder of the prompt, one of the picture, cross-attention with a mask for each token, the
# same from a mask of every layer, places of pictures counted by hand, and pictures in front.
READ = ("florence2", "t5gemma2", "vision-encoder-decoder", "mllama", "idefics", "kosmos-2", "git")


def decoded(model: Any, processor: Any, case: Case, banned: list[int]) -> tuple[Tensor, Tensor]:
    """Greedy ids and their log-probs by the library alone, from the whole conversation."""
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
        for part in case.parts
    ]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    pictures = [[Image.fromarray(part.array) for part in case.media]]
    given = dict(
        processor(text=[text], images=pictures, return_tensors="pt", add_special_tokens=False)
    )
    if model.config.model_type == "vision-encoder-decoder":
        start = torch.tensor([[processor.tokenizer.bos_token_id]])
        ids = torch.cat([start, given["input_ids"]], dim=1)
        given = {"pixel_values": given["pixel_values"], "decoder_input_ids": ids}
    # What a checkpoint's settings force on a sequence is not the model's distribution.
    model.generation_config = tf.GenerationConfig(
        decoder_start_token_id=processor.tokenizer.bos_token_id,
        eos_token_id=processor.tokenizer.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    out = model.generate(
        **given,
        max_new_tokens=NEW,
        do_sample=False,
        suppress_tokens=banned,
        output_logits=True,
        return_dict_in_generate=True,
    )
    logits = torch.cat(out.logits).float()
    logits[:, [i for i in banned if i < logits.shape[1]]] = -torch.inf
    ids = out.sequences[0, -len(logits) :]
    return ids, logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]


@pytest.mark.parametrize("name", READ)
def test_what_is_trained_is_what_the_library_decodes(name: str) -> None:
    made, case = policy(name), Case((picture(1, 56, 56), "What is this?"))
    assert not made.family.declaration.shared_prefix
    ids, wanted = decoded(*other_types.make(name), case, list(made.family.banned_ids))
    prompt = ask(made, case)
    greedy = Sampling(max_new_tokens=NEW, temperature=0.0)
    ((found, _),) = HFEngine(made).generate([prompt], [2], greedy, seed=0)
    assert found.ids.tolist() == ids.tolist()
    # Beside a shorter one, so that a row is padded.
    row = SharedRow(prompt, (ids.numpy(), ids.numpy()[:2]))
    assert relative(shared(made, [row])[: len(ids)], wanted) < 1e-5


def test_noise_is_the_same_in_every_forward() -> None:
    """Of a model that adds some to what it hears; other draws go on as if there were none."""
    made = policy("vibevoice_asr")
    assert made.family.declaration.notes.endswith("its forward draws noise")
    prompt = ask(made, Case((tone(1, 1.0), "What is said?")))
    row = SharedRow(prompt, (prompt.ids[-4:], prompt.ids[-2:]))
    first, again = (shared(made, [row]) for _ in range(2))
    assert torch.equal(first, again)
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    shared(made, [row])
    assert torch.equal(torch.rand(4), wanted)
    drawn = HFEngine(made).generate([prompt], [3], Sampling(max_new_tokens=4), seed=0)[0]
    trained = shared(made, [SharedRow(prompt, tuple(r.ids for r in drawn))])
    sampled = torch.cat([torch.from_numpy(r.logprobs) for r in drawn])
    assert relative(trained.double(), sampled) < 1e-5
    assert len({tuple(r.ids.tolist()) for r in drawn}) > 1


def test_a_model_that_decodes_no_tokens_alone_shares_nothing() -> None:
    made: Policy = policy("instructblip")
    assert "tokens without media do not go through it" in made.family.declaration.notes

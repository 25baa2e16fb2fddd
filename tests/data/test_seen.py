"""The table of loaders: every layout, every medium, one step trained, and the media were seen."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from mmrl.data.samples import load_samples
from mmrl.policy.attention import active_layout
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.scoring.tasks import load_task
from mmrl.types import Prompt
from tests.data.loaders import CONTENTS, LOADERS, write_media
from tests.families.cases import policy, responses

pytest.importorskip("soundfile")
pytest.importorskip("torchaudio")

ROOT = Path(__file__).parents[2]
TASK = ("custom", {"function": "tests.verifiers:abstains"})


@pytest.fixture(scope="module")
def made() -> Policy:
    """A model that takes pictures, clips and sound."""
    return policy("qwen2_5_omni")


def prompts(name: str, folder: Path, made: Policy, *, changed: bool) -> dict[str, Prompt]:
    """The prompt of every content that the layout can hold."""
    write_media(folder, changed=changed)
    loader = LOADERS[name]
    contents = {key: turns for key, turns in CONTENTS.items() if key not in loader.lacks}
    rejected: dict[str, str] = {}
    path = loader.write(folder, contents)
    samples = load_samples(
        load_task(*TASK), path, "custom", rejected.__setitem__, None, loader.mapped
    )
    assert not rejected and len(samples) == len(contents)
    encoder = Encoder(made.family, defaults={"video": {"frames": 2}})
    found = {key: encoder.prompt(s) for key, s in zip(contents, samples, strict=True)}
    encoder.close()
    return found


def logprobs(made: Policy, asked: list[Prompt]) -> torch.Tensor:
    """Log-probs [prompts, T] of one answer to each; where gradients are on, of their mean too."""
    (answer,) = responses(0, (4,))
    layout = lay_out([SharedRow(prompt, (answer,)) for prompt in asked], made.device)
    with active_layout(layout):
        found, _ = made.logprobs(layout, asked, temperature=1.0)
        if torch.is_grad_enabled():
            (-found.mean()).backward()
    return found.detach().reshape(len(asked), len(answer))


@pytest.mark.parametrize("name", LOADERS)
def test_every_medium_of_every_layout_is_seen_and_trained_on(
    name: str, tmp_path: Path, made: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "hf:" in name:  # the cache is another folder, and put back
        config = pytest.importorskip("datasets").config
        monkeypatch.setattr(config, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(config, "HF_DATASETS_CACHE", config.HF_DATASETS_CACHE)
    asked = prompts(name, tmp_path / "one", made, changed=False)
    other = prompts(name, tmp_path / "other", made, changed=True)
    made.model.zero_grad()
    before = logprobs(made, list(asked.values()))
    with torch.no_grad():
        changed = logprobs(made, list(other.values()))
    for key, one, two in zip(asked, before, changed, strict=True):
        assert not torch.equal(one, two), f"{name}: a changed {key} changes nothing"
        shown = [p.kind for p in asked[key].sample.parts if hasattr(p, "kind")]
        assert len(shown) == {"several": 2, "turns": 2}.get(key, 1)
        assert asked[key].sample.history == ((("user", 2), ("assistant", 1)) * (key == "turns"))
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.grad is not None:
                parameter -= 0.003 * parameter.grad
        after = logprobs(made, list(asked.values()))
    assert after.mean() > before.mean()


def test_the_documentation_shows_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    tool = importlib.import_module("loaders_table")
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    assert tool.put(page) == page, "run tools/loaders_table.py"
    needed = {"image", "several", "video", "audio", "turns"}
    assert all(needed.isdisjoint(loader.lacks) for loader in LOADERS.values())

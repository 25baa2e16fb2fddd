"""A configuration names its engine; one whose package is absent says how to get it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mmrl.config import RunConfig
from mmrl.engines.hf import HFEngine
from mmrl.engines.prefix_cache import MAX_TOKENS
from mmrl.engines.targets import Targets
from mmrl.engines.vllm.client import process
from mmrl.errors import UserError
from mmrl.model_config import ModelConfig
from mmrl.policy.model_folder import model_folder
from mmrl.policy.policy import Policy
from mmrl.rollout import build
from mmrl.rollout.build import build_engine, serve
from mmrl.rollout_config import RolloutConfig
from tests.conftest import TINY


@pytest.mark.parametrize(("name", "kind"), [("hf", HFEngine), ("targets", Targets)])
def test_engines_that_need_nothing(name: str, kind: type, policy: Policy) -> None:
    rollout = RolloutConfig.model_validate({"engine": name})
    assert isinstance(build_engine(policy, ModelConfig(path=TINY), rollout, {}), kind)


@pytest.mark.parametrize("name", ["hf", "hf_copy"])
@pytest.mark.parametrize(("said", "kept"), [(None, MAX_TOKENS), (0, 0), (5000, 5000)])
def test_embedded_engines_keep_as_much_of_episodes_as_is_said(
    name: str, said: int | None, kept: int, policy: Policy
) -> None:
    rollout = RolloutConfig.model_validate({"engine": name, "prefix_tokens": said})
    engine = build_engine(policy, ModelConfig(path=TINY), rollout, {})
    own = getattr(engine, "_engine", engine)
    assert own._prefix_tokens == kept


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_absent_package_names_its_extra(policy: Policy) -> None:
    with pytest.raises(UserError, match=r"needs vllm: pip install 'mmrl\[vllm\]'"):
        build_engine(policy, ModelConfig(path=TINY), RolloutConfig(engine="vllm"), {})


def test_an_adapter_is_served_by_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs give the server their weights; the adapter's folder has no configuration of a model."""
    base = str(model_folder(TINY))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    config = RunConfig.model_validate(
        {
            "run": tmp_path / "run",
            "model": {"path": str(tmp_path)},
            "data": {"task": "digits", "path": tmp_path},
            "trainer": {"steps": 1},
        }
    )
    served: list[Any] = []

    def take(arguments: Mapping[str, Any], host: str, port: int) -> None:
        served.extend((arguments["model"], host, port))

    monkeypatch.setattr(build, "_require", lambda package, rollout: None)
    monkeypatch.setattr(process, "serve_in_place", take)
    serve(config, "127.0.0.1", 1)
    assert served == [base, "127.0.0.1", 1]

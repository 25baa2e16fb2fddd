"""A configuration names its engine; one whose package is absent says how to get it."""

from __future__ import annotations

import importlib.util

import pytest

from mmrl.config import ModelConfig, RolloutConfig
from mmrl.errors import UserError
from mmrl.policy.policy import Policy
from mmrl.rollout.build import build_engine
from mmrl.rollout.hf import HFEngine
from mmrl.rollout.targets import Targets
from tests.conftest import TINY


@pytest.mark.parametrize(("name", "kind"), [("hf", HFEngine), ("targets", Targets)])
def test_engines_that_need_nothing(name: str, kind: type, policy: Policy) -> None:
    rollout = RolloutConfig.model_validate({"engine": name})
    assert isinstance(build_engine(policy, ModelConfig(path=TINY), rollout, {}), kind)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_absent_package_names_its_extra(policy: Policy) -> None:
    with pytest.raises(UserError, match=r"needs vllm: pip install 'mmrl\[vllm\]'"):
        build_engine(policy, ModelConfig(path=TINY), RolloutConfig(engine="vllm"), {})

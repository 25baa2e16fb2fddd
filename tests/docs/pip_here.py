"""`pip install -e .` of a page, without a network and without changing the environment."""

from __future__ import annotations

import os
import subprocess
import sys

OFFLINE = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--upgrade")


def main() -> int:
    install, *words = sys.argv[1:]
    paths = [word for word in words if word != "-e"]
    if install != "install" or not all(path.startswith(".") for path in paths):
        print(f"only folders can be installed here: {words}", file=sys.stderr)
        return 2
    command = [sys.executable, "-m", "pip", "install", *OFFLINE, "--target"]
    return subprocess.run([*command, os.environ["INSTALLED"], *paths]).returncode


if __name__ == "__main__":
    sys.exit(main())

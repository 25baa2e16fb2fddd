"""Locks that a killed process left in torch's cache of extensions, for which torch waits for ever.

DeepSpeed has torch build, or load, its extensions at every start. torch (2.13, 2.14) marks that
with a file named `lock`, which its maker keeps open, and waits until the file is gone.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from torch.utils.cpp_extension import get_default_build_root

LONGEST_BUILD_SECONDS = 3600.0
SHARED_FILE_SYSTEMS = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "9p", "fuse")


def remove_stale(say: Callable[[str], None], root: Path | None = None) -> None:
    """Remove locks whose process is gone from the cache of extensions, and say which.

    On a file system that other machines share, the process may run on one of them: there a lock is
    left until it is older than any build takes. Elsewhere than on Linux nothing is known of who
    has a file open, so age decides, too.
    """
    root = root or Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    for lock in sorted({*root.glob("*/lock"), *root.glob("*/*/lock")}):
        try:
            found = lock.stat()
        except FileNotFoundError:
            continue
        old = time.time() - found.st_mtime > LONGEST_BUILD_SECONDS
        if old or (_is_local(lock) and not _is_open(found)):
            lock.unlink(missing_ok=True)
            say(
                f"removed {lock}: the process that held it is gone, and DeepSpeed would wait for it"
            )


def _is_open(file: os.stat_result) -> bool:
    """Whether a process of ours has a file open."""
    return any((one.st_dev, one.st_ino) == (file.st_dev, file.st_ino) for one in _open_files())


def _open_files() -> Iterator[os.stat_result]:
    for process in Path("/proc").glob("[0-9]*/fd"):
        try:
            handles = list(process.iterdir())
        except OSError:  # it ended meanwhile, or is another user's
            continue
        for handle in handles:
            with contextlib.suppress(OSError):
                yield handle.stat()


def _is_local(path: Path) -> bool:
    """Whether no other machine can have the file open, as far as the system says."""
    if sys.platform != "linux":
        return False
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    above = [(place, kind) for place, kind in mounts if path.resolve().is_relative_to(place)]
    _, kind = max(above, key=lambda mount: len(mount[0]))
    return not kind.startswith(SHARED_FILE_SYSTEMS)

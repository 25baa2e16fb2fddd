#!/usr/bin/env bash
# safetensors: a disk that takes no more is not an OSError when a checkpoint is written
#
# Packages: safetensors 0.8.0, numpy 2.4.6. Where the system refuses to write (a full disk, a quota, a
# file over the limit), Python's own writers raise OSError with an errno, and trainers catch that to
# say so and go on later. save_file raises SafetensorError, a plain Exception without errno, whose text
# alone has the system's number: `except OSError` and `error.errno == ENOSPC` never see it, and a run
# of days ends in a traceback. save_pretrained of transformers and peft passes it on.
# Shown with a limit on the size of files, which needs neither root nor a small disk.
# Seen: "Python: OSError, errno 27" and "safetensors: SafetensorError, OSError False, errno None"
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"; "$work/v/bin/pip" install -q safetensors==0.8.0 numpy==2.4.6
cat > "$work/look.py" <<'PY'
import errno, resource, sys
import numpy as np
from safetensors.numpy import save_file

weights = {"w": np.zeros(1_000_000, np.float32)}
save_file(weights, sys.argv[1] + "/a.safetensors")  # valid, and there is room
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    with open(sys.argv[1] + "/b.bin", "wb", buffering=0) as file:
        while file.write(bytes(50_000)):
            pass
except OSError as error:
    print(f"Python: {type(error).__name__}, errno {error.errno}")
    assert error.errno == errno.EFBIG
try:
    save_file(weights, sys.argv[1] + "/c.safetensors")
except Exception as error:
    is_os, number = isinstance(error, OSError), getattr(error, "errno", None)
    print(f"safetensors: {type(error).__name__}, OSError {is_os}, errno {number}: {error}")
    assert not is_os and number is None and f"os error {errno.EFBIG}" in str(error)
else:
    raise SystemExit("it was written")
PY
"$work/v/bin/python" "$work/look.py" "$work"

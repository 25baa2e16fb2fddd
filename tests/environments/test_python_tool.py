"""Programs of a model: they compute and print, and nothing else, whatever they try."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmrl.environments import python_tool
from mmrl.environments.picture_tools import NotUsable
from mmrl.environments.python_tool import run_python
from mmrl.errors import UserError

SECRET = "the gold is 42"


def test_it_computes_and_sees_pictures() -> None:
    pixels = np.zeros((3, 5, 3), np.uint8)
    pixels[1, 2] = (9, 8, 7)
    code = "import math, statistics\nprint(math.factorial(5), np.mean([1, 2]))\n"
    code += "a = pictures[0]\nprint(a.shape, a[1, 2].tolist(), np.linalg.det(np.eye(3)))"
    said = run_python(code, [Image.fromarray(pixels)])
    assert said == "120 1.5\n(3, 5, 3) [9, 8, 7] 1.0\n"
    assert "ZeroDivisionError" in run_python("print(1)\n1/0")
    assert run_python("print(1)\n1/0").startswith("1\n")
    assert run_python("x = 1") == "The program printed nothing."
    assert "SyntaxError" in run_python("print(")


ATTACKS = {
    "open a file": "print(open('FILE').read())",
    "through os": "import os\nprint(os.read(os.open('FILE', 0), 99))",
    "through io": "import io\nprint(io.FileIO('FILE').read())",
    "write a file": "open('FILE.new', 'w').write('x')",
    "list a folder": "import os\nprint(os.listdir('FOLDER'))",
    "delete": "import os\nos.unlink('FILE')",
    "run a program": "import os\nprint(os.system('cat FILE'))",
    "spawn": "import subprocess\nprint(subprocess.run(['cat', 'FILE'], capture_output=True))",
    "exec": "import os\nos.execv('/bin/cat', ['cat', 'FILE'])",
    "fork": "import os\nprint('child', os.fork())",
    "thread": "import threading\nt = threading.Thread(target=print); t.start()",
    "socket": "import socket\ns = socket.socket(); s.connect(('127.0.0.1', PORT)); print('in')",
    "c socket": "import ctypes\nl = ctypes.CDLL(None)\nprint('fd', l.socket(2, 1, 0))",
    "c open": "import sys\nc = sys.modules['ctypes'].CDLL(None)\nfd = c.open(b'FILE', 0)\n"
    "b = sys.modules['ctypes'].create_string_buffer(99)\nprint(c.read(fd, b, 99), b.value)",
    "kill": "import os\nos.kill(os.getppid(), 9)",
    "trace": "import sys\nprint(sys.modules['ctypes'].CDLL(None).ptrace(0, 0, 0, 0))",
    "link": "import os\nos.symlink('FILE', 'FOLDER/link')",
    "limits": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nprint('off')",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_else_is_possible(name: str, tmp_path: Path) -> None:
    (tmp_path / "gold").write_text(SECRET)
    hits: list[object] = []
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(30)

    def accept() -> None:
        try:
            hits.append(server.accept())
        except OSError:
            return

    threading.Thread(target=accept, daemon=True).start()
    code = ATTACKS[name].replace("FILE", str(tmp_path / "gold"))
    code = code.replace("FOLDER", str(tmp_path)).replace("PORT", str(server.getsockname()[1]))
    said = run_python(code)
    server.close()
    assert SECRET not in said and not hits and "in\n" not in said
    assert "child" not in said and "off" not in said and "gold'" not in said.replace("/gold'", "")
    assert [path.name for path in tmp_path.iterdir()] == ["gold"]
    assert (tmp_path / "gold").read_text() == SECRET


def test_time_memory_and_words_are_bounded() -> None:
    started = time.monotonic()
    assert "took over 1 seconds" in run_python("while True: pass", seconds=1)
    stubborn = "while True:\n try:\n  while True: pass\n except BaseException: pass"
    assert "took over 1 seconds" in run_python(stubborn, seconds=1)
    assert time.monotonic() - started < 200
    hog = run_python("x = bytearray(8 << 30); print(len(x))")
    assert "MemoryError" in hog and str(8 << 30) not in hog
    assert len(run_python("print('a' * 10_000_000)")) == 2_000
    with pytest.raises(NotUsable, match="characters"):
        run_python("#" * 10_000)


def test_a_program_cannot_pass_for_a_machine_that_lacks_seccomp() -> None:
    forged = "import os\nos.write(2, b'OSError: seccomp KeyError')\nos._exit(1)"
    assert run_python(forged) == "The program failed."
    over = "import os\nos.lseek(1, 0, 0)\nos.write(1, b'another')\nos._exit(1)"
    assert run_python(over) == "The program failed."


def test_what_a_program_writes_past_print_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    run = python_tool._run

    def sized(payload: bytes, seconds: float) -> tuple[int, bytes, str]:
        found = run(payload, seconds)
        sizes.append(len(found[1]) + len(found[2]))
        return found

    monkeypatch.setattr(python_tool, "_run", sized)
    run_python("import os\nfor _ in range(400): os.write(1, b'x' * 10_000)")
    run_python("import os\nfor _ in range(400): os.write(2, b'x' * 10_000)")
    assert max(sizes) < 2_000_000


def test_a_machine_that_cannot_lock_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = python_tool.CHILD.read_text()
    assert child.count("    lock()\n") == 1
    broken = tmp_path / "child.py"
    broken.write_text(child.replace("    lock()\n", "    raise OSError(22, 'seccomp')\n"))
    monkeypatch.setattr(python_tool, "CHILD", broken)
    with pytest.raises(UserError, match="seccomp on x86-64"):
        run_python("print(1)")

"""An exported model with its card, and the push to a hub: one that stands on this machine."""

from __future__ import annotations

import base64
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mmrl.cli import main
from tests.runs import make_digits, run_config, write_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    digits = make_digits(folder / "digits", train=8, test=4)
    config = run_config(folder / "run", digits, trainer={"steps": 1, "prompts_per_step": 2})
    assert main(["train", str(write_config(folder / "c.yaml", config))]) == 0
    return folder / "run"


def test_a_card_says_what_the_model_is(run: Path, tmp_path: Path) -> None:
    for source in (run, run / "checkpoints" / "step_1"):
        out = tmp_path / source.name
        assert main(["export", str(source), "--out", str(out), "--card"]) == 0
        _, head, body = (out / "README.md").read_text("utf-8").split("---\n", 2)
        assert yaml.safe_load(head)["tags"] == ["mmrl", "reinforcement-learning", "grpo"]
        assert "trained with grpo" in body and "`digit_count`" in body
        assert "Weights after step 1; torch " in body
        after = json.loads((run / "eval_after.json").read_text())
        assert f"| after | accuracy {after['metric']:.3f} |" in body
        assert yaml.safe_load(body.split("```yaml\n")[1].split("```")[0])["seed"] == 0
    lone = tmp_path / "lone"
    assert main(["export", str(tmp_path / "run"), "--out", str(lone), "--card"]) == 2


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of a hub as a push asks."""

    files: dict[str, bytes]
    asked: list[str]

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"] or 0)
        body, address = self.rfile.read(size), f"http://127.0.0.1:{self.server.server_port}"
        self.asked.append(self.path)
        if self.headers.get("Authorization") != "Bearer hf_right":
            self._say(401, {"error": "who are you?"})
        elif self.path == "/api/repos/create":
            self._say(200, {"url": f"{address}/me/model"})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            kinds = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            self._say(200, {"files": kinds})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                row = json.loads(line)
                if row["key"] == "file":
                    value = row["value"]
                    self.files[value["path"]] = base64.b64decode(value["content"])
            made = {"commitUrl": f"{address}/me/model/commit/1", "commitOid": "1", "success": True}
            self._say(200, made)
        else:
            self._say(200, {"errors": [], "warnings": []})

    def do_GET(self) -> None:
        self._say(200, {"id": "me/model", "name": "me", "siblings": [], "private": True})

    def _say(self, status: int, value: object) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    kind = type("Hub", (Hub,), {"files": {}, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", kind
    server.shutdown()


def pushed(run: Path, out: Path, address: str, token: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": address,
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    command = ["mmrl.cli", "export", str(run), "--out", str(out), "--push", "me/model"]
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, env=environment
    )


def test_a_push_brings_every_file_and_the_card(
    run: Path, tmp_path: Path, hub: tuple[str, type[Hub]]
) -> None:
    address, seen = hub
    done = pushed(run, tmp_path / "out", address, "hf_right")
    assert done.returncode == 0, done.stderr
    assert f"{address}/me/model" in done.stdout
    own = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    assert seen.files == own and "README.md" in own and "model.safetensors" in own


def test_a_push_that_is_refused_is_one_line(
    run: Path, tmp_path: Path, hub: tuple[str, type[Hub]]
) -> None:
    done = pushed(run, tmp_path / "out", hub[0], "hf_wrong")
    assert done.returncode == 2
    assert "mmrl: me/model was not pushed: " in done.stderr and "Traceback" not in done.stderr

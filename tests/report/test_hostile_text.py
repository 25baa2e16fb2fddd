"""Nothing a model, a data set or a file name says becomes markup, script or a file read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mmrl.report import render, write_report

from .conftest import jpeg, metrics, rollout

MakeRun = Callable[..., Path]

PAYLOADS = (
    "<script>document.title='pwned'</script>",
    "</div></article><img src=x onerror=\"document.title='pwned'\">",
    "\"><svg onload=document.title='pwned'>",
    "'><iframe srcdoc='<script>parent.document.title=1</script>'></iframe>",
    "</script><script>document.title='pwned'</script>",
    "</style><script>document.title='pwned'</script>",
    "{{ 7 * 7 }}{% set x = 1 %}${7*7}",
    '<a href="javascript:document.title=1">x</a>',
    "<!-- --><base href='//example.org/'><meta http-equiv=refresh content=0>",
    "\u202egnp.exe\x1b[31m\x00\ud800",
)
HOSTILE = "".join(PAYLOADS)
KNOWN_TAGS = frozenset(
    re.findall(
        r"\w+",
        "html head meta link title style body header main section article footer div p span b i em "
        "strong small h1 h2 h3 h4 dl dt dd ul li figure figcaption img audio svg path text circle "
        "rect g form label select option input output table thead tbody tr th td details summary "
        "pre script",
    )
)


class Page(HTMLParser):
    """Collects the tags, attributes, scripts and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def hostile_run(make_run: MakeRun) -> Path:
    """A run in which every string that can be, is hostile."""
    response: dict[str, Any] = {
        "text": HOSTILE,
        "tokens": list(PAYLOADS),
        "advantages": [0.1 * i for i in range(len(PAYLOADS))],
        "finish": HOSTILE,
        "reward": 1.0,
        "parts": {HOSTILE: 1.0},
        "status": HOSTILE,
        "reason": HOSTILE,
        "length": 3,
    }
    plain = {**response, "tokens": None, "advantages": 0.5}
    medium = {"kind": HOSTILE, "hash": HOSTILE, "thumbnail": "media/a.jpg", "duration": 1}
    seen = {"kind": "image", "thumbnail": "media/a.jpg", "processed_size": [HOSTILE, 1]}
    lines = [
        rollout(
            i,
            id=HOSTILE,
            task=f"{i % 2}{HOSTILE}",
            variant=HOSTILE,
            prompt=HOSTILE,
            gold={"a": HOSTILE, HOSTILE: [HOSTILE]},
            media=[medium, seen],
            responses=[response, plain],
        )
        for i in range(1, 4)
    ]
    names = ("", "reward/", "task/", "modality/", "time/", "tokens/", "memory/", "eval/")
    values = {f"{name}{HOSTILE}": 1.0 for name in names}
    values |= {f"task/{HOSTILE}/reward": 1.0, "train/loss": HOSTILE}
    evaluation = {"metric": 0.5, "task": HOSTILE, "metric_name": HOSTILE, "records": 3}
    more = {**evaluation, "others": [{**evaluation, "task": "other"}]}
    config = {"task": HOSTILE}
    return make_run(
        name="<img src=x onerror=document.title='pwned'>",
        rollouts=lines,
        metrics=[{**metrics(i), **values} for i in range(1, 4)],
        quarantine=[{"step": HOSTILE, "id": HOSTILE, "stage": HOSTILE, "reason": HOSTILE}],
        eval_before=more,
        eval_after=more,
        result={"seed": HOSTILE},
        config=f"seed: 1\ndata: [{config!r}]\n",
    )


def test_hostile_strings_leave_no_trace_in_the_markup(hostile_run: Path) -> None:
    path = write_report(hostile_run)
    page = Page(path.read_text(encoding="utf-8"))
    assert set(page.tags) <= KNOWN_TAGS
    assert page.tags.count("script") == 1
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("srcdoc", "formaction", "action", "style")
        if name in ("src", "href"):
            assert re.match(r"data:(image/jpeg;base64|audio/wav;base64)?,", value or "")
        if tag == "meta":
            assert "refresh" not in (value or "")
    text = "".join(page.text)
    assert "{{ 7 * 7 }}{% set x = 1 %}${7*7}" in text  # shown as it is, not evaluated
    assert text.count("<script>document.title='pwned'</script>") > 10
    assert "\x00" not in text
    assert "\x1b" not in text


def test_the_tokens_of_a_completion_are_shown_escaped(hostile_run: Path) -> None:
    assert '<span class="up4">' in render(hostile_run)


@pytest.mark.parametrize(
    "thumbnail",
    ["secret.jpg", "../secret.jpg", "media/../secret.jpg", "media/link.jpg", "media/text.jpg"],
)
def test_only_previews_of_the_run_are_embedded(make_run: MakeRun, thumbnail: str) -> None:
    lines = [rollout(1, media=[{"kind": "image", "thumbnail": thumbnail}])]
    run = make_run(rollouts=lines)
    for folder in (run, run.parent):
        (folder / "secret.jpg").write_bytes(jpeg())
    (run / "media" / "link.jpg").symlink_to(run.parent / "secret.jpg")
    (run / "media" / "text.jpg").write_text("password")
    page = render(run)
    assert "data:image" not in page
    assert "no preview" in page


CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_in_a_browser_only_the_pages_own_script_runs(hostile_run: Path, tmp_path: Path) -> None:
    path = write_report(hostile_run)
    shown = path.rename(tmp_path / "page.html")
    command = [
        str(CHROMIUM),
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update"),
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        shown.as_uri(),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        timeout=120,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    page = Page(done.stdout.decode("utf-8", "replace"))
    title = re.search(r"<title>(.*?)</title>", done.stdout.decode("utf-8", "replace"), re.S)
    assert title is not None
    assert title[1].endswith("mmrl")
    assert "3 of 3 shown" in "".join(page.text)  # its own script ran: the policy lets it
    assert page.tags.count("script") == 1
    assert not any(name.startswith("on") for _, name, _ in page.attributes)

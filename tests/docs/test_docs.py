"""The pages hold together: links, anchors, the navigation, quoted messages; and the site builds."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmrl.algorithms.compose import compose
from tests.docs.docs_pages import DOCS, ROOT, anchors, links, pages, prose


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert target.is_relative_to(ROOT), f"{page.name}: {link} leaves the repository"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: no heading for {link}"


def test_every_page_is_in_the_navigation_once() -> None:
    listed = re.findall(r"^([a-z_]+)$", _trees(), re.MULTILINE)
    assert sorted(listed) == sorted({page.stem for page in DOCS.glob("*.md")} - {"index"})


def _trees() -> str:
    index = (DOCS / "index.md").read_text("utf-8")
    return "\n".join(re.findall(r"^```\{toctree\}\n(.*?)^```$", index, re.MULTILINE | re.DOTALL))


def test_nothing_is_fetched_by_a_reader() -> None:
    """No page and no setting brings a picture, font or script from elsewhere."""
    for page in pages():
        shown = re.sub(r"`[^`\n]+`", "", prose(page))  # code in a line is text
        assert not re.search(r"!\[[^\]]*\]\(https?:|<(script|img|link|iframe)\b", shown), page
    assert "http" not in (DOCS / "conf.py").read_text("utf-8")


def test_every_message_of_the_troubleshooting_page_is_said_by_the_code() -> None:
    """A quoted message stands in the source, where `...` stands for what differs.

    Backticks in a message are left out, since it is quoted in them.
    """
    code = _joined_strings(
        "\n".join(f.read_text("utf-8") for f in sorted((ROOT / "mmrl").rglob("*.py")))
    )
    quoted = re.findall(r"^### `(.+)`$", (DOCS / "troubleshooting.md").read_text("utf-8"), re.M)
    assert len(quoted) > 30
    for message in quoted:
        pieces = [re.escape(piece.strip()) for piece in message.split("...") if piece.strip()]
        assert re.search(r".{0,160}?".join(pieces), code, re.DOTALL), message


def _joined_strings(code: str) -> str:
    """Source in which the pieces of a message, a line each, are one string again."""
    return re.sub(r"""["']\s*\n\s*f?["']""", "", code).replace("`", "")


def test_the_costs_of_algorithms_are_those_of_the_code() -> None:
    """The needs in the decision table are what each algorithm asks for with its own values."""
    rows = re.findall(
        r"^\| `(\w+)` \| (-|`.*?`) \| .* \| .* \|$", (DOCS / "choose.md").read_text("utf-8"), re.M
    )
    assert len(rows) > 12
    for name, needs in rows:
        assert set(re.findall(r"`(\w+)`", needs)) == compose({"name": name}).needs, name


def test_every_algorithm_that_is_recommended_exists() -> None:
    table = (DOCS / "choose.md").read_text("utf-8").partition("## By what you see")[2]
    rows = [row for row in table.partition("## By")[0].splitlines()[4:] if row.startswith("|")]
    names = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[2])]
    assert len(names) > 5
    for name in names:
        compose({"name": name})


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    if importlib.util.find_spec("sphinx") is None:
        pytest.skip("Sphinx is in the extra `docs`, which `make test` installs")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, str(DOCS), str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    made = {page.stem for page in tmp_path.glob("*.html")}
    assert made >= {page.stem for page in DOCS.glob("*.md")}
    for page in sorted(tmp_path.rglob("*.html")):
        outside = re.findall(r'(?:src|href)="(?:https?:)?//[^"]+"', page.read_text("utf-8"))
        fetched = [link for link in outside if not link.startswith("href") or ".css" in link]
        assert not fetched, f"{page.name} fetches {fetched}"

"""`mmrl families` says of every family what its tests check."""

from __future__ import annotations

import json

import pytest

from mmrl import plugins
from mmrl.cli import main
from tests.families.tiny import TINY


def test_families_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["families", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows.keys() == plugins.available("family").keys()
    assert {tiny.family for tiny in TINY.values()} == rows.keys() - {"generic"}
    for family in rows.keys() - {"generic"}:
        row = rows[family]
        # A family's larger models may not hear: together its models take what it declares.
        own = {kind for tiny in TINY.values() if tiny.family == family for kind in tiny.kinds}
        kinds = {"video" if kind == "sounding clip" else kind for kind in own}
        assert kinds | ({"screenshot"} if "image" in kinds else set()) == set(row["takes"])
        assert row["video_sound"] == ("sounding clip" in own)
        assert row["shared_prefix"]


def test_families_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["families"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in plugins.available("family"))
    assert "no shared prefix" in text


def test_what_smolvlm_notes_of_its_processor_is_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "num2words" in plugins.load("family", "smolvlm").DECLARATION.notes
    monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", None)
    with pytest.raises(ImportError, match="num2words"):
        TINY["smolvlm"].build()

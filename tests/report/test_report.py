"""The page about a run: what it says, that it is complete in itself, and how large it gets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mmrl.errors import UserError
from mmrl.report import render, write_report, write_until_it_ends
from mmrl.report.cards import MAX_RESPONSES, card_of, order, tint

from .conftest import Line, jpeg, rollout

MakeRun = Callable[..., Path]


def text_of(page: str) -> str:
    """The words of a page, as one line."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_a_finished_run_shows_its_facts(make_run: MakeRun) -> None:
    path = write_report(make_run("digits"))
    assert path.name == "report.html"
    page = text_of(path.read_text(encoding="utf-8"))
    for fact in ("digits", "count", "grpo", "tiny", "6 of 6", "2 min 5 s", "on 50 records"):
        assert fact in page
    assert "0.2 → 0.8 +0.6" in page
    assert "All 6 groups." in page
    assert "still going" not in page


def test_a_card_shows_what_was_seen_said_earned_and_learned(make_run: MakeRun) -> None:
    page = render(make_run(steps=1))
    assert page.count('<img alt="image, seen at 28 x 28" src="data:image/jpeg;base64,') == 1
    words = text_of(page)
    assert "Gold 3" in words
    assert "#1 1 +0.5 … +1 accuracy 1 3 tokens" in words
    assert "#2 0 −1 cut off missing accuracy 0 1 tokens no answer tag four" in words  # noqa: RUF001
    assert '<span class="up4">th</span><span class="up2">re</span>' in page
    assert '<span class="untrained">e</span>' in page


def test_the_page_loads_nothing(make_run: MakeRun) -> None:
    page = render(make_run())
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_a_page_that_is_watched_loads_itself_until_the_run_has_ended(make_run: MakeRun) -> None:
    run = make_run()
    result = (run / "result.json").read_text()
    (run / "result.json").unlink()
    (run / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.5}\n')
    seen = []

    def meanwhile(seconds: float) -> None:
        seen.append((run / "report.html").read_text("utf-8"))
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": len(seen) + 1, "reward/mean": 0.5}) + "\n")
        if len(seen) == 3:
            (run / "result.json").write_text(result)

    write_until_it_ends(run, 7, meanwhile)
    assert len(seen) == 3 and len(set(seen)) == 3
    assert all('<meta http-equiv="refresh" content="7">' in page for page in seen)
    assert "refresh" not in (run / "report.html").read_text("utf-8")


def test_an_empty_run_says_so(tmp_path: Path) -> None:
    page = text_of(write_report(tmp_path).read_text())
    assert "No step has been finished yet." in page
    assert "Nothing to show yet" in page


def test_a_folder_that_is_not_there_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder"):
        write_report(tmp_path / "nothing")


def test_a_killed_run_renders_up_to_its_last_whole_line(make_run: MakeRun) -> None:
    run = make_run(steps=3)
    for name in ("result.json", "eval_after.json", "config.yaml"):
        (run / name).unlink()
    for name in ("metrics.jsonl", "rollouts.jsonl", "quarantine.jsonl"):
        with (run / name).open("ab") as file:
            file.write(b'{"step": 4, "reward/mean": 0.')
    page = text_of(render(run))
    assert "still going, or stopped" in page
    assert "step 3" in page
    assert "step 4" not in page
    assert "1 half-written line passed over." in page
    assert "0.2" in page  # the number before training is there


@pytest.mark.parametrize("name", ["config.yaml", "result.json", "eval_before.json"])
@pytest.mark.parametrize("junk", [b"", b"\xff\xfe", b"[1, 2", b"[1, 2]", b"null", b"a: [b"])
def test_junk_in_a_file_costs_only_that_file(make_run: MakeRun, name: str, junk: bytes) -> None:
    run = make_run()
    (run / name).write_bytes(junk)
    assert "sample-6" in render(run)


def test_an_episode_is_played_turn_by_turn(make_run: MakeRun) -> None:
    """What was shown before each turn, what was said, what it earned; junk in it is left out."""
    screen = {"kind": "screenshot", "thumbnail": "media/a.jpg", "processed_size": [224, 224]}
    turns = [
        {"said": "first <b>", "earned": 0.0, "media": []},
        {"said": "second", "earned": 0.5, "media": [screen, {"thumbnail": "../x.jpg"}, 3]},
        "junk",
        {"said": 7, "earned": "x", "media": "junk"},
    ]
    made = rollout(1)
    made["responses"][0]["turns"] = turns
    run = make_run(rollouts=[made])
    first, other = card_of(made, run).completions
    assert [(len(t.pictures), t.said, t.earned) for t in first.turns] == [
        (0, "first <b>", 0.0),
        (2, "second", 0.5),
        (0, "7", None),
    ]
    assert first.turns[1].pictures[0].uri.startswith("data:image/jpeg;base64,")
    assert first.turns[1].pictures[1].uri == "" and other.turns == ()
    page = render(run)
    assert "Turn 2" in page and "screenshot, seen at 224 x 224" in page
    assert "first &lt;b&gt;" in page and "first <b>" not in page


def test_an_episode_s_tokens_are_folded_below_its_turns(make_run: MakeRun) -> None:
    """A picture's placeholders are one word with their number; the tokens do not open at once."""
    made = rollout(1)
    seen = ["<|vision_start|>", *["<|image_pad|>"] * 9, "<|vision_end|>", "<b>", "<b>"]
    made["responses"][0] |= {
        "tokens": ["up", *seen, "ha", "ha", "ha"],
        "advantages": [1.0, *[None] * len(seen), 1.0, 1.0, 1.0],
        "turns": [
            {"said": "up", "earned": 0.0, "media": []},
            {"said": "hahaha", "earned": 1.0, "media": [{"kind": "image"}]},
        ],
    }
    page = render(make_run(rollouts=[made]))
    folded = "&lt;|vision_start|&gt;&lt;|image_pad|&gt; x 9&lt;|vision_end|&gt;&lt;b&gt;&lt;b&gt;"
    block = page[page.index('<details class="whole">') :]
    assert folded in block[: block.index("</details>")] and page.count("image_pad") == 1
    assert page.index("Turn 2") < page.index("all its tokens")
    assert '<span class="up4">hahaha</span>' in block
    assert page.count('<details class="whole">') == 1, "an answer of one turn is open"


def test_turns_say_what_they_earned_and_which_was_cut_short(make_run: MakeRun) -> None:
    """A last turn that its environment answered is whole, though the answer had no more room."""
    made = rollout(1)
    picture = [{"kind": "image"}]
    for number, earned in enumerate((None, 0.5)):
        made["responses"][number] |= {
            "finish": "length",
            "turns": [
                {"said": "up", "earned": 0.0, "media": []},
                {"said": "do", "earned": earned, "media": picture},
            ],
        }
    run = make_run(rollouts=[made])
    cut, whole = card_of(made, run).completions
    assert [turn.cut for turn in cut.turns] == [False, True]
    assert [turn.cut for turn in whole.turns] == [False, False]
    words = text_of(render(run))
    assert "Turn 1 earned 0 up Turn 2 cut short" in words and "Turn 2 earned 0.5" in words


def test_places_are_drawn_over_their_media(make_run: MakeRun) -> None:
    """Gold once, each answer under its number, junk nowhere."""

    def mark(kind: str, whose: str, numbers: Any, **more: Any) -> Line:
        return {"kind": kind, "whose": whose, "numbers": numbers, "label": "", **more}

    gold = mark("box", "gold", [0.1, 0.2, 0.5, 0.6], label="<cat>")
    junk = [mark("box", "answer", [0, 1]), mark("point", "answer", ["x", 1]), 3, {"whose": 1}]
    made = rollout(1)
    made["responses"][0]["marks"] = [gold, mark("point", "answer", [0.3, 0.4]), *junk]
    made["responses"][1]["marks"] = [gold, mark("polygon", "answer", [0, 0, 1, 0, 1, 5])]
    run = make_run(rollouts=[made])
    (picture,) = card_of(made, run).pictures
    assert [(d.number, d.kind, d.path) for d in picture.drawn] == [
        (0, "box", "M100 200L500 200L500 600L100 600Z"),
        (1, "point", "M300 400h0"),
        (2, "polygon", "M0 0L1000 0L1000 1100Z"),
    ]
    assert (picture.drawn[0].left, picture.drawn[0].top) == (10.0, 20.0) and not picture.bars
    page = render(run)
    assert "gold &lt;cat&gt;" in page and 'd="M300 400h0"' in page


def test_intervals_are_drawn_under_clips_and_tracks_on_their_frames(make_run: MakeRun) -> None:
    clip = {
        "kind": "video",
        "thumbnail": "media/a.jpg",
        "seconds": [2, 4, 6, 12],
        "shown": [0, 2, 3],
    }
    made = rollout(1, media=[clip])
    made["responses"][0]["marks"] = [
        {"kind": "interval", "whose": "gold", "numbers": [4.0, 7.0]},
        {"kind": "interval", "whose": "answer", "numbers": [0.0, 22.0]},
        {"kind": "box", "whose": "answer", "numbers": [0, 0, 1, 1], "shown": 2},
        {"kind": "box", "whose": "answer", "numbers": [0, 0, 1, 1], "shown": 1},
        {"kind": "box", "whose": "answer", "numbers": [0, 0, 1, 1]},
    ]
    (picture,) = card_of(made, make_run(rollouts=[made])).pictures
    assert [(b.number, b.left, b.width, b.label) for b in picture.bars] == [
        (0, 20.0, 30.0, "4.0 to 7.0 s"),
        (1, 0.0, 96.0, "0.0 to 22.0 s"),
    ]
    assert [d.path for d in picture.drawn] == ["M500 0L1000 0L1000 500L500 500Z"]


def test_rows_of_unexpected_shape_do_not_stop_the_page(make_run: MakeRun) -> None:
    odd = [
        {"step": "x", "responses": None, "media": {"a": 1}},
        {"responses": [1, {"parts": [1], "advantages": "x", "tokens": 3, "reward": "1"}]},
        {"step": 1, "media": [{"thumbnail": 7, "shown": [9, "a"], "seconds": ["b"]}], "gold": {}},
        {"responses": [{"parts": {"a": None}, "tokens": ["a"], "advantages": [1, 2]}]},
        {"step": None, "prompt": ["list"], "responses": [{"text": 5, "length": "z"}]},
    ]
    page = render(make_run(rollouts=odd, metrics=[{"step": 1}, {"step": 2, "reward/mean": "x"}]))
    assert "All 5 groups." in page


def test_the_diagnosis_is_on_the_page(make_run: MakeRun) -> None:
    page = render(make_run(metrics=[{"step": 1, "share/truncated": 0.82}]))
    assert "82 % of completions hit the length limit of 64 tokens" in page


def test_the_diagnosis_names_the_last_phase_s_limit(make_run: MakeRun) -> None:
    config = "rollout: {max_new_tokens: 64}\nphases: [{name: a}, {rollout: {max_new_tokens: 32}}]\n"
    page = render(make_run(metrics=[{"step": 1, "share/truncated": 0.82}], config=config))
    assert "the length limit of 32 tokens" in page


def test_several_tasks_have_a_result_each(make_run: MakeRun) -> None:
    def side(first: float, second: float) -> dict[str, object]:
        answers = [{"id": str(i), "metric": float(i < 10 * first)} for i in range(10)]
        other = {"task": "clip", "metric": second, "metric_name": "mean tIoU"}
        return {"task": "count", "metric": first, "answers": answers, "others": [other]}

    page = text_of(render(make_run(eval_before=side(0.3, 0.1), eval_after=side(0.8, 0.4))))
    assert "count , held out 0.3 → 0.8 +0.5" in page
    assert "clip , held out 0.1 → 0.4 +0.3" in page
    assert "5 records got better, 0 worse." in page


def test_of_an_error_less_is_better(make_run: MakeRun) -> None:
    def side(*errors: float) -> dict[str, object]:
        answers = [{"id": str(i), "metric": error} for i, error in enumerate(errors)]
        return {"task": "crowd", "metric": sum(errors), "better": "lower", "answers": answers}

    page = text_of(render(make_run(eval_before=side(3, 3, 3), eval_after=side(1, 2, 5))))
    assert "Lower is better. 2 records got better, 1 worse." in page


def test_the_quarantine_is_listed_and_counted(make_run: MakeRun) -> None:
    rows = [{"step": 1, "id": f"bad-{i}", "stage": "decode", "reason": "0 bytes"} for i in range(3)]
    page = text_of(render(make_run(quarantine=[*rows, {"stage": "score"}])))
    assert "3 at decode, 1 at score." in page
    assert "1 bad-2 decode 0 bytes" in page


def test_a_large_run_is_sampled_below_the_cap_with_both_ends(make_run: MakeRun) -> None:
    run = make_run(rollouts=[rollout(i, prompt=f"{i} " * 5_000) for i in range(1, 301)])
    (run / "media" / "a.jpg").write_bytes(jpeg(300, 95))
    cap = 2_000_000
    page = render(run, max_bytes=cap)
    assert 0.8 * cap < len(page.encode()) <= cap
    shown = [int(step) for step in re.findall(r'data-step="(\d+)"', page)]
    assert shown[0] == 1
    assert shown[-1] == 300
    assert shown == sorted(shown)
    gaps = [later - earlier for earlier, later in pairwise(shown)]
    assert max(gaps) <= 2.1 * 300 / len(shown)
    assert f"{len(shown)} of 300 groups" in text_of(page)


def test_long_curves_stay_small(make_run: MakeRun) -> None:
    rows = [{"step": i, "reward/mean": (i % 97) / 97, "time/a": 1.0} for i in range(20_000)]
    assert len(render(make_run(metrics=rows, rollouts=[]))) < 400_000


def test_order_reaches_every_index_once_and_ends_first() -> None:
    assert list(order(0)) == []
    assert list(order(1)) == [0]
    assert list(order(5)) == [0, 4, 2, 1, 3]
    assert sorted(order(301)) == list(range(301))


def test_a_group_of_hundreds_shows_its_best_and_worst(tmp_path: Path) -> None:
    responses = [{"text": str(i), "reward": i / 100} for i in range(100)]
    card = card_of(rollout(1, responses=responses), tmp_path)
    assert len(card.completions) == MAX_RESPONSES
    assert card.hidden == 100 - MAX_RESPONSES
    assert card.completions[0].text == "99"
    assert card.completions[-1].text == "0"
    assert (card.mean, card.spread) == (pytest.approx(0.495), 0.99)


@pytest.mark.parametrize(
    ("advantage", "expected"),
    [(2.0, "up4"), (0.01, "up1"), (1.0, "up2"), (-2.0, "down4"), (0.0, ""), (None, "untrained")],
)
def test_tints_follow_sign_and_size(advantage: float | None, expected: str) -> None:
    assert tint(advantage, scale=2.0) == expected


def test_the_report_does_not_import_torch() -> None:
    code = "import sys, mmrl.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Every common layout asks the same: turns and media in their places, or a refusal by name."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from mmrl.corpus.fields import Fields
from mmrl.corpus.layout import layout_of
from mmrl.data.inspection import Asking
from mmrl.scoring.tasks import load_task
from mmrl.types import MediaRef, Part, Record, Reference, Sample, Text

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
ROOT = Path("/data")
ASK = Text("What is it?")


def ask(task: Any = None, columns: dict[str, str | None] | None = None, **row: Any) -> Sample:
    found: Sample = (task or Asking()).ask(Record("1", Fields(row, columns), ROOT))
    return found


def image(name: str = "a.png", **options: Any) -> MediaRef:
    return MediaRef("image", ROOT / name, options)


def user(*content: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": list(content)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


HUMAN = {"from": "human", "value": "<image>What is it?"}
REPLY = {"from": "gpt", "value": "A dog."}
LAYOUTS: dict[str, dict[str, Any]] = {
    "TRL: typed": {"prompt": [user({"type": "image"}, text("What is it?"))], "images": ["a.png"]},
    "TRL: typed content in `messages`": {
        "messages": [user({"type": "image", "text": None}, {**text("What is it?"), "image": None})],
        "image": "a.png",
    },
    "LLaVA": {"conversations": [HUMAN, REPLY], "image": "a.png"},
    "messages in `messages`, as of ms-swift": {
        "messages": [{"role": "user", "content": "<image>What is it?"}],
        "images": ["a.png"],
    },
    "OpenAI": {
        "prompt": [user({"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}},
                        text("What is it?"))]
    },
    "qwen-vl-utils": {"messages": [user({"type": "image", "image": "file:///data/a.png"},
                                        text("What is it?"))]},
    "verl": {
        "prompt": [{"role": "user", "content": "<image>What is it?"}],
        "images": [{"bytes": None, "path": "a.png"}],
        "reward_model": {"style": "rule", "ground_truth": "dog"},
        "extra_info": {"index": 0},
    },
    "columns": {"question": "What is it?", "image": "a.png", "answer": "dog"},
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_one_question_about_one_picture_is_the_same_in_every_layout(name: str) -> None:
    sample = ask(**LAYOUTS[name])
    assert sample.parts == (image(), ASK)
    assert (sample.system, sample.history) == (None, ())
    assert layout_of(Fields(LAYOUTS[name])).startswith(name)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_task_finds_its_columns_in_every_layout(name: str) -> None:
    """vqa_mix was written for `problem`, `solution` and `images`."""
    row = {"answer": "dog", **LAYOUTS[name], "problem_type": "OCR"}
    sample = ask(load_task("vqa_mix"), **row)
    assert sample.parts[:2] == (image(), ASK)
    assert sample.gold.answer == "dog" and "<answer>" in sample.parts[2].text


@pytest.mark.parametrize("task", ["video_choice", "audio_qa", "referring_box", "gui_grounding"])
def test_tasks_that_do_not_place_media_get_them_where_the_text_shows_them(task: str) -> None:
    kind = {"video_choice": "video", "audio_qa": "audio"}.get(task, "image")
    rows: dict[str, dict[str, Any]] = {
        "video_choice": {"options": ["A. cat", "B. dog"], "answer": "B"},
        "audio_qa": {"choices": ["cat", "dog"], "answer": "dog"},
        "referring_box": {"bbox": [1, 2, 3, 4]},
        "gui_grounding": {"bbox": [1, 2, 3, 4], "img_size": [9, 9], "ui_type": "icon"},
    }
    said = f"First this <{kind}> then what?"
    row = {"messages": [{"role": "user", "content": said}], f"{kind}s": ["m.x"], **rows[task]}
    row |= {"normal_caption": said, "instruction": said} if kind == "image" else {}
    row |= {"messages": None} if kind == "image" else {}
    parts = ask(load_task(task), **row).parts
    place = next(i for i, part in enumerate(parts) if isinstance(part, MediaRef))
    before, after = parts[place - 1], parts[place + 1]
    assert isinstance(before, Text) and before.text.endswith("First this ")
    assert isinstance(after, Text) and after.text.startswith(" then what?")
    assert sum(isinstance(part, MediaRef) for part in parts) == 1
    assert parts[place].source == ROOT / "m.x"


def test_earlier_turns_are_history_in_their_roles() -> None:
    row = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "<image>Describe it."},
            {"role": "assistant", "content": "A card."},
            {"role": "tool", "content": "zoomed"},
            {"role": "user", "content": "And <image> this?"},
            {"role": "assistant", "content": "<think>hm</think>red"},
        ],
        "images": ["a.png", "b.png"],
    }
    sample = ask(**row)
    assert sample.system == "Be brief."
    assert sample.history == (("user", 2), ("assistant", 1), ("tool", 1))
    assert sample.parts == (
        image(), Text("Describe it."), Text("A card."), Text("zoomed"), Text("And "),
        image("b.png"), Text(" this?"),
    )  # fmt: skip
    assert sample.reference == Reference("<think>hm</think>red")


def test_a_task_is_given_the_media_of_the_last_turn_alone() -> None:
    talk = [
        {"role": "user", "content": "<image>Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "And <image>?"},
    ]
    row = {"messages": talk, "images": ["a.png", "b.png"], "problem_type": "OCR", "answer": "x"}
    sample = ask(load_task("vqa_mix"), **row)
    assert sample.history == (("user", 2), ("assistant", 1))
    assert sample.parts[:5] == (
        image(), Text("Hello"), Text("Hi"), Text("And "), image("b.png"),
    )  # fmt: skip


def test_a_picture_of_an_earlier_turn_serves_a_task_that_needs_one_and_stays_where_it_is() -> None:
    row = {
        "messages": [
            {"role": "user", "content": "<image>Hello"},
            {"role": "assistant", "content": "Hi"},
            {"role": "user", "content": "How many digits?"},
        ],
        "images": ["a.png"],
        "count": 3,
    }
    sample = ask(load_task("digit_count"), **row)
    assert sample.parts[:3] == (image(), Text("Hello"), Text("Hi"))
    assert sample.history == (("user", 2), ("assistant", 1))
    assert sum(isinstance(part, MediaRef) for part in sample.parts) == 1


def test_media_in_every_dress() -> None:
    frames = ["f1.png", "f2.png"]
    one = tuple(ROOT / name for name in frames)
    for value in (PNG, URL, base64.b64encode(PNG).decode(), {"bytes": PNG, "path": None},
                  {"image": URL}, [{"url": URL}], bytearray(PNG)):  # fmt: skip
        assert ask(prompt="q", image=value).parts == (MediaRef("image", PNG), Text("q"))
    assert ask(prompt="q", image="https://h.org/a.png").parts[0].source == "https://h.org/a.png"
    assert ask(prompt="q", video=frames).parts[0] == MediaRef("video", one)
    assert ask(prompt="q", frames=frames).parts[0] == MediaRef("video", one)
    assert ask(prompt="q", videos=[frames]).parts[0] == MediaRef("video", one)
    assert [p.source for p in ask(prompt="q", videos=["a.mp4", "b.mp4"]).parts[:2]] == [
        ROOT / "a.mp4", ROOT / "b.mp4",
    ]  # fmt: skip
    audio = user({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}})
    assert ask(messages=[audio]).parts[0] == MediaRef("audio", b"RIFF")
    for cell in ('["a.png", "b.png"]', "['a.png', 'b.png']"):  # of a CSV, as pandas writes it too
        assert ask(prompt="q", images=cell).parts[:2] == (image(), image("b.png"))


def test_media_by_kind_in_one_column_are_shown() -> None:
    row = {"multi_modal_data": {"image": ["a.png"], "audio": ["t.wav"]}, "prompt": "<image>q"}
    assert [p.source for p in ask(**row).parts if isinstance(p, MediaRef)] == [
        ROOT / "t.wav", ROOT / "a.png",
    ]  # fmt: skip
    again = {"prompt": "q", "image": PNG, "extra_info": {"image": PNG, "file": "img/1.png"}}
    assert ask(**again).parts == (MediaRef("image", PNG), Text("q"))


def test_settings_of_single_media_in_columns_are_kept() -> None:
    one = {"image": "a.png", "max_pixels": 784, "width": 9}
    sized = {"path": "b.png", "bytes": None, "resized_height": 28, "resized_width": 56}
    for row in ({"prompt": "<image><image>q"}, {"messages": [user(text("<image>q <image>"))]}):
        shown = [p for p in ask(**row, images=[one, sized]).parts if isinstance(p, MediaRef)]
        assert shown == [image(max_pixels=784), image("b.png", size=(56, 28))]
    clip = {"video": "v.mp4", "fps": 2.0, "nframes": None}
    row = {"options": ["A. x", "B. y"], "answer": "A", "question": "why"}
    assert ask(load_task("video_choice"), **row, videos=[clip]).parts[0].options == {"fps": 2.0}


def test_a_history_column_holds_the_turns_before_the_question() -> None:
    pairs = [["<image>Hello", "Hi"], ["More?", "Yes."]]
    rows: list[dict[str, Any]] = [
        {"query": "And <image>?", "history": pairs},
        {"instruction": "And <image>?", "history": json.dumps(pairs)},
        {"question": "And <image>?", "history": [m for a, b in pairs for m in (
            {"role": "user", "content": a}, {"role": "assistant", "content": b})]},
    ]  # fmt: skip
    for row in rows:
        for task, more in (
            (None, {}),
            (load_task("vqa_mix"), {"problem_type": "OCR", "answer": "red"}),
        ):
            sample = ask(task, **row, **more, images=["a.png", "b.png"], response="red")
            assert sample.parts[:5] == (
                image(), Text("Hello"), Text("Hi"), Text("More?"), Text("Yes."),
            )  # fmt: skip
            turns = (("user", 2), ("assistant", 1), ("user", 1), ("assistant", 1))
            assert sample.history == turns
            assert sample.parts[5:7] == (Text("And "), image("b.png"))
            assert sample.reference == (Reference("red") if "query" in row else None)
    plain = ask(prompt="q", image="a.png", history=None)
    assert plain.history == () and ask(prompt="q", history=[]).parts == (Text("q"),)


def test_marks_that_name_their_file() -> None:
    """As Qwen-VL and older ms-swift write them."""
    for question in ("<img>a.png</img>What is it?", "<image>a.png</image>What is it?"):
        for row in ({"question": question}, {"messages": [{"role": "user", "content": question}]}):
            assert ask(**row).parts == (image(), ASK)
    mixed = ask(load_task("vqa_mix"), problem="<image> or <img>b.png</img>?", image="a.png",
                problem_type="OCR", answer="x")  # fmt: skip
    assert mixed.parts[:4] == (image(), Text(" or "), image("b.png"), Text("?"))
    assert ask(question="Write <img>alt</img>.").parts == (Text("Write <img>alt</img>."),)


@pytest.mark.parametrize(
    "options",
    [
        ["cat", "dog"], '["cat", "dog"]', "['cat', 'dog']", {"A": "cat", "B": "dog"},
        {"A": "cat", "B": "dog", "C": None}, '{"A": "cat", "B": "dog"}', "A. cat\nB. dog",
        {"label": ["A", "B"], "text": ["cat", "dog"]}, "(A) cat\n(B) dog",
        [{"label": "A", "text": "cat"}, {"label": "B", "text": "dog"}],
    ],
    ids=str,
)  # fmt: skip
def test_options_in_every_shape(options: Any) -> None:
    row = {"problem": "Which?", "problem_type": "multiple choice", "options": options}
    for answer in ("B", "dog"):
        gold = ask(load_task("vqa_mix"), **row, solution=answer, image="a.png").gold
        assert (gold.options, gold.answer) == (("cat", "dog"), "B")
    row = {"question": "Which?", "options": options, "answer": "B", "video": "v.mp4"}
    assert ask(load_task("video_choice"), **row).gold.options == ("cat", "dog")


@pytest.mark.parametrize("options", ["cat or dog", {"x": "cat"}, {"A": "cat", "C": "dog"}])
def test_options_that_are_no_list_are_refused(options: Any) -> None:
    row = {"problem": "Which?", "problem_type": "multiple choice", "solution": "A"}
    with pytest.raises(ValueError, match="options are a list"):
        ask(load_task("vqa_mix"), **row, options=options)


def test_settings_of_single_media_are_kept() -> None:
    clip = {"type": "video", "video": ["1.jpg", "2.jpg"], "sample_fps": 4, "max_pixels": 50176}
    sized = {"image": "a.png", "resized_height": 28, "resized_width": 56}
    sample = ask(messages=[user(clip, text("and"), sized)])
    assert [part.options for part in sample.parts if isinstance(part, MediaRef)] == [
        {"fps": 4, "max_frame_pixels": 50176}, {"size": (56, 28)},
    ]  # fmt: skip
    choice = load_task("video_choice")
    row = {"options": ["A. x", "B. y"], "answer": "A", "start": 1.0}
    (ref, _) = ask(choice, messages=[user(clip, text("why"))], **row).parts
    assert ref.options == {"fps": 4, "max_frame_pixels": 50176, "start": 1.0}


@pytest.mark.parametrize(
    ("question", "shown"),
    [
        ("<image_2> or <image_1>?", ["b.png", "a.png"]),
        ("<image1>, again <image1>, then <image 2>", ["a.png", "a.png", "b.png"]),
        ("<|image_1|><|image_2|>", ["a.png", "b.png"]),
        ("<image-0> <image-1>", ["a.png", "b.png"]),
        ("only <image_2>", ["a.png", "b.png"]),  # what no number names comes first
        ("<|vision_start|><|image_pad|><|vision_end|> and <image>", ["a.png", "b.png"]),
        ("<image><image>", ["a.png", "b.png"]),
    ],
)
def test_placeholders_of_every_form(question: str, shown: list[str]) -> None:
    for row in ({"question": question}, {"messages": [{"role": "user", "content": question}]}):
        parts = ask(**row, images=["a.png", "b.png"]).parts
        assert [p.source.name for p in parts if isinstance(p, MediaRef)] == shown
        assert not any("image" in p.text for p in parts if isinstance(p, Text))


def test_markup_in_a_question_is_no_placeholder() -> None:
    assert ask(question="Fix <video></video>.").parts == (Text("Fix <video></video>."),)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "<image> q"}, "1 <image> placeholders for 0 images"),
        ({"prompt": "<image><image>q", "image": "a.png"}, "2 <image> placeholders for 1 images"),
        ({"prompt": "<video>q", "image": "a.png"}, "1 <video> placeholders for 0 videos"),
        ({"prompt": "<image_3>", "images": ["a.png", "b.png"]}, "<image_3> in the text, .* has 2"),
        ({"messages": [user({"type": "audio"})]}, "1 <audio> placeholders for 0 audios"),
        ({"prompt": "q", "image": "a.png", "thumb": {"bytes": PNG, "path": None}}, "'thumb' holds"),
        ({"prompt": "q", "scan": base64.b64encode(PNG).decode()}, "'scan' holds a medium"),
        ({"prompt": "q", "extra_info": {"shown": [{"bytes": PNG}]}}, "'extra_info' holds a medium"),
        (
            {"prompt": "q", "image": URL, "multi_modal_data": {"image": [PNG + b"0"]}},
            "'multi_modal",
        ),
        ({"prompt": "q", "images": ["a.png"], "image_path": "b.png"}, "column 'image_path' holds"),
        ({"prompt": "q", "image": "../a.png"}, "leaves the data folder.*data.media_roots"),
        ({"prompt": "q", "image": "file:///etc/passwd"}, "leaves the data folder"),
        ({"prompt": "q", "image": "data:image/png,zz"}, "must be base64"),
        ({"messages": [user({"type": "image", "image": "a.png", "zoom": 2})]}, "'zoom'"),
        ({"messages": [user({"type": "box"})]}, "neither text nor a medium"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "unknown role 'narrator'"),
        ({"messages": [{"role": "system", "content": "x"}]}, "no user turn"),
        ({"prompt": [user(text("q")), user(text("a"), role="assistant")]}, "name it `messages`"),
        ({"prompt": "q", "audio": {"array": [0.5], "sampling_rate": 8}}, "no medium in"),
        ({"prompt": "q", "audio": [0.5, 0.25]}, "not a media path or bytes"),
        ({"prompt": ["q"]}, "column 'prompt' holds neither"),
        ({"answer": "x"}, "no column 'prompt'; the record has: answer"),
    ],
)
def test_what_would_not_be_shown_is_refused_by_name(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ask(**row)


def test_a_task_that_takes_one_medium_refuses_two() -> None:
    with pytest.raises(ValueError, match="takes one medium as 'image', the record has 2"):
        ask(load_task("digit_count"), images=["a.png", "b.png"], count=2)


def test_media_of_other_kinds_are_shown_in_any_task() -> None:
    row = {"problem": "Which?", "problem_type": "OCR", "solution": "dog"}
    parts = ask(load_task("vqa_mix"), **row, audios=["t.wav"], image="a.png").parts
    assert [p.kind for p in parts if isinstance(p, MediaRef)] == ["audio", "image"]


def test_columns_are_mapped_and_left_out_by_name() -> None:
    row = {"q": "What is it?", "img": "a.png", "thumbs": [{"bytes": PNG}], "meta": {"gold": "dog"}}
    mapped: dict[str, str | None] = {"question": "q", "images": "img", "answer": "meta.gold"}
    sample = ask(columns={**mapped, "thumbs": None}, **row)
    assert sample.parts == (image(), ASK) and sample.gold == "dog"
    assert ask(columns=mapped, **{**row, "thumbs": 3}).gold == "dog"
    choice = ask(columns={"image": "right"}, prompt="q", left_image=1, right="b.png", img="a.png")
    assert choice.parts == (image("b.png"), Text("q"))


def test_roots_besides_the_folder_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_bytes(PNG)
    roots = (tmp_path / "other",)
    record = Record(
        "1", {"prompt": "q", "image": str(roots[0] / "a.png")}, tmp_path / "data", roots
    )
    assert Asking().ask(record).parts[0].source == roots[0] / "a.png"
    relative = Record("1", {"prompt": "q", "image": "a.png"}, tmp_path / "data", roots)
    assert Asking().ask(relative).parts[0].source == roots[0] / "a.png"
    beyond = Record("1", {"prompt": "q", "image": "/etc/passwd"}, tmp_path / "data", roots)
    with pytest.raises(ValueError, match="leaves"):
        Asking().ask(beyond)


def test_texts(part: Part = ASK) -> None:
    """Alpaca's instruction with its input, and a system prompt in a column."""
    sample = ask(instruction="Say", input="hello", output="Hi", system="Be brief.")
    assert sample.parts == (Text("Say\nhello"),) and sample.system == "Be brief."
    assert sample.reference == Reference("Hi")
    assert ask(prompt=[{"role": "system", "content": ""}, user(text("q"))]).system == ""

"""Clips: frames by number and time, budgets, sound on the same timeline, and what is refused."""

from __future__ import annotations

import io
import json
import os
import struct
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmrl.errors import MediaError
from mmrl.modalities import decode_worker, readers, sound
from mmrl.modalities.audio import decode as decode_audio
from mmrl.modalities.video import Options, choose, decode
from mmrl.types import Media, MediaRef

av = pytest.importorskip("av", reason="PyAV writes the test videos")

READERS = ("torchcodec", "pyav", "decord")
RATE = 16_000


def clip(
    frames: int = 20,
    fps: int = 10,
    size: tuple[int, int] = (64, 48),
    step_seconds: Fraction | None = None,
    tone_seconds: float = 0.0,
    shade: int = 0,
) -> bytes:
    """An H.264 clip whose frame i is grey 10 * i and `shade`; `tone_seconds` of a 440 Hz tone."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        step = step_seconds or Fraction(1, fps)
        sound = container.add_stream("aac", rate=RATE, layout="mono") if tone_seconds else None
        for i in range(frames):
            pixels = np.full((size[1], size[0], 3), (10 * i + shade) % 250, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(i * step * 90_000), Fraction(1, 90_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(tone_seconds * RATE)) / RATE)
            heard = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), "fltp", "mono")
            heard.sample_rate = RATE
            container.mux(sound.encode(heard))
            container.mux(sound.encode(None))
    return buffer.getvalue()


def read(source: bytes | Path | str, **options: object) -> Media:
    return decode(MediaRef("video", source, options))


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> str:
    usable(request.param)
    return str(request.param)


def usable(name: readers.Name) -> None:
    """Skip where the reader cannot be loaded here, and say why."""
    try:
        readers.load(name)
    except readers.LOAD_ERRORS as error:
        pytest.skip(f"{name}: {error}")


def test_a_reader_without_its_libraries_gives_way_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = pytest.importorskip("torchcodec")
    monkeypatch.setattr(package, "ffmpeg_major_version", None)
    assert readers.open_video(clip(), None)[1].startswith("pyav")
    with pytest.raises(MediaError, match=r"torchcodec cannot be loaded: .* FFmpeg"):
        readers.open_video(clip(), "torchcodec")
    header, _ = sound.read_container(clip(tone_seconds=1.0), {"start": 0.0, "end": None})
    assert header["reader"].startswith("av")


def test_every_reader_gives_the_same_frames(reader: str) -> None:
    media = read(clip(), reader=reader, frames=4, start=0.45, end=1.6)
    # Frames are 0.1 s apart: the clip holds those shown from 0.5 s to 1.5 s.
    assert media.frame.indices == (5, 8, 12, 15)
    assert media.frame.seconds == pytest.approx((0.5, 0.8, 1.2, 1.5), abs=1e-4)
    assert media.array[:, 20, 20, 0].tolist() == pytest.approx([50, 80, 120, 150], abs=4)
    assert media.frame.fps == pytest.approx(10, rel=0.01)
    assert media.frame.source_size == (64, 48)
    assert media.frame.reader.startswith(reader)


def test_frame_rate_and_budgets() -> None:
    assert len(read(clip(), fps=4.0).array) == 8
    assert len(read(clip(), fps=4.0, max_frames=3).array) == 3
    assert len(read(clip(), fps=0.01, min_frames=2).array) == 2
    small = read(clip(), frames=2, max_frame_pixels=800)
    assert small.array.shape == (2, 24, 32, 3)
    assert small.frame.source_size == (64, 48)
    shared = read(clip(), frames=10, max_total_pixels=8000)
    assert shared.array.shape == (10, 24, 32, 3)


def test_choice_is_even_and_includes_both_ends() -> None:
    assert choose(range(10), 0, 10.0, Options(fps=0.4)) == [0, 3, 6, 9]
    assert choose([3.0, 3.5], 3, 1.0, Options(fps=30.0)) == [3, 4]
    # Ten frames in the first second, then one every five: by number half would be of that second.
    varying = [i / 10 for i in range(10)] + [5.0, 10.0, 15.0, 20.0]
    assert choose(varying, 0, 20.0, Options(fps=0.25)) == [0, 10, 11, 12, 13]
    assert choose(varying, 7, 20.0, Options(frames=3)) == [7, 7 + 11, 7 + 13]
    # What is shown for long is shown once.
    assert choose([0.0, 0.1, 60.0], 0, 60.0, Options(fps=1.0)) == [0, 1, 2]
    assert choose([0.0, 60.0], 0, 60.0, Options(fps=1.0)) == [0, 1]


def test_readers_whose_clocks_round_otherwise_choose_the_same_frames() -> None:
    """2.5 lies between frames 2 and 3: the earlier is taken, whatever the last digit says."""
    for jitter in (-1e-9, 0.0, 1e-9):
        times = [0.0, 1.0, 2.0 + jitter, 3.0 - jitter, 4.0, 5.0]
        assert choose(times, 0, 5.0, Options(frames=3)) == [0, 2, 5]


def test_one_frame(reader: str) -> None:
    media = read(clip(frames=1), reader=reader)
    assert media.array.shape == (1, 48, 64, 3)
    assert media.frame.indices == (0,)


UPRIGHT: dict[int, tuple[tuple[int, int], tuple[int, int]]] = {
    90: ((48, 64), (0, -1)),
    180: ((64, 48), (-1, -1)),
    270: ((48, 64), (-1, 0)),
}
"""Clockwise degrees -> size of the upright frame, and its corner that was the file's top left."""


def phone_clip(degrees: int) -> bytes:
    """A clip of 64 x 48 with a bright top left corner, to be shown turned clockwise.

    As phones write it: the track header's matrix says (x, y) -> (a x + c y + e, b x + d y + f).
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        pixels = np.full((48, 64, 3), 40, dtype=np.uint8)
        pixels[:16, :16] = 230
        for _ in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    made, one = buffer.getvalue(), 1 << 16
    a, b, c, d, e, f = {
        90: (0, 1, -1, 0, 48, 0),
        180: (-1, 0, 0, -1, 64, 48),
        270: (0, -1, 1, 0, 0, 64),
    }[degrees]
    matrix = struct.pack(">9i", *(one * v for v in (a, b, 0, c, d, 0, e, f)), 1 << 30)
    straight = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    # The movie's header has a matrix too; the track's comes after it.
    before, after = made[: (track := made.index(b"tkhd"))], made[track:]
    assert straight in after
    return before + after.replace(straight, matrix, 1)


@pytest.mark.parametrize("degrees", UPRIGHT)
def test_a_phones_clip_is_upright(reader: str, degrees: int) -> None:
    size, (row, column) = UPRIGHT[degrees]
    try:
        media = read(phone_clip(degrees), reader=reader, frames=2)
    except MediaError as error:
        assert reader == "decord" and degrees != 180, error
        assert "misreads clips that are turned by a quarter" in str(error)
        return
    assert media.frame.source_size == size
    bright = media.array[1, :, :, 0] > 150
    assert bright.mean() == pytest.approx(256 / (64 * 48), rel=0.1)
    assert bright[row, column]


def test_four_hours_are_refused_and_a_clip_of_them_is_not(reader: str) -> None:
    long = clip(frames=25, step_seconds=Fraction(600), fps=1)
    with pytest.raises(MediaError, match="over max_seconds=3600"):
        read(long, reader=reader)
    part = read(long, reader=reader, start=7200.0, end=9000.0, frames=3)
    assert part.frame.seconds == pytest.approx((7200, 7800, 8400))


def test_own_sound_is_on_the_same_timeline() -> None:
    media = read(clip(tone_seconds=2.0), audio=True, start=0.5, end=1.5)
    assert media.track is not None and media.rate == RATE
    assert len(media.track) == RATE
    spectrum = np.abs(np.fft.rfft(media.track))
    assert spectrum.argmax() == 440  # one second: bins are 1 Hz
    with pytest.raises(MediaError, match="audio"):
        read(clip(), audio=True)


def clicking(form: str, sound_at: float, frames_at: float) -> bytes:
    """Frames and sound that set in when they are told to; a click one second into the sound."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": "2", "g": "20"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        own = container.add_stream("aac", rate=RATE, layout="mono")
        for i in range(30):
            pixels = np.full((48, 64, 3), 8 * i, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i + round(frames_at * 10), Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        wave = np.zeros((1, 2 * RATE), dtype=np.float32)
        wave[0, RATE : RATE + 160] = 0.9
        heard = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
        heard.sample_rate, heard.pts, heard.time_base = (
            RATE,
            round(sound_at * RATE),
            Fraction(1, RATE),
        )
        container.mux(own.encode(heard))
        container.mux(own.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize("start", [0.0, 0.2])
@pytest.mark.parametrize(("sound_at", "frames_at"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5)])
@pytest.mark.parametrize("form", ["mp4", "matroska", "mpegts"])
def test_a_click_is_heard_when_it_is_seen(
    form: str, sound_at: float, frames_at: float, start: float
) -> None:
    """Sound sets in when it does, not with the first frame."""
    media = read(clicking(form, sound_at, frames_at), audio=True, start=start)
    assert media.track is not None
    click = int(np.argmax(np.abs(media.track) > 0.4)) / RATE
    assert start + click == pytest.approx(1.0 + sound_at - frames_at, abs=0.005)


def test_a_clip_before_its_sound_or_after_it_is_silent() -> None:
    late = clicking("matroska", 0.5, 0.0)
    before = read(late, audio=True, end=0.3)
    assert before.track is not None and len(before.track) == 0.3 * RATE
    assert not before.track.any()
    after = read(late, audio=True, start=2.7)
    assert after.track is not None and not after.track.any()


def test_a_silent_clip_among_clips_with_sound(tmp_path: Path) -> None:
    loud, silent = clip(tone_seconds=2.0), clip()
    heard = read(loud, audio="auto", frames=4)
    assert heard.track is not None and heard.hash == read(loud, audio=True, frames=4).hash
    quiet = read(silent, audio="auto", frames=4)
    assert quiet.track is None and quiet.rate == 0
    assert quiet.hash == read(silent, frames=4).hash
    with pytest.raises(MediaError, match=r"no audio stream in the file .*audio=auto"):
        read(silent, audio=True)
    with pytest.raises(MediaError, match="no audio stream in the file"):
        decode_audio(MediaRef("audio", silent))
    buffer = io.BytesIO()
    Image.new("RGB", (28, 28)).save(buffer, "PNG")
    stills = MediaRef("video", (buffer.getvalue(),) * 3, {"audio": "auto"})
    assert decode(stills).track is None
    with pytest.raises(MediaError, match="given by its frames has no sound"):
        decode(MediaRef("video", stills.source, {"audio": True}))


def test_hash_tells_frames_order_times_and_sound_apart() -> None:
    one = clip(tone_seconds=2.0)
    hashes = {
        read(one, frames=4).hash,
        read(one, frames=4, audio=True).hash,
        read(one, frames=4, end=1.0).hash,
        read(one, frames=4, start=1.0).hash,
    }
    assert len(hashes) == 4
    assert read(one, frames=4).hash == read(one, frames=4).hash


@pytest.mark.parametrize(
    ("source", "options", "reason"),
    [
        (clip()[:900], {}, "not a readable video|damaged video|no frames"),
        (b"not a video at all", {}, "not a readable video"),
        (b"", {}, "empty video file"),
        (Path("/nonexistent/a.mp4"), {}, "no video at"),
        (clip(), {"start": 5.0}, "not inside a video"),
        (clip(), {"start": 1.0, "end": 0.5}, "not inside a video"),
        (clip(), {"speed": 2}, "unknown key 'speed'"),
        (clip(size=(2000, 2)), {}, "max_aspect_ratio"),
        ("https://example.org/a.mp4", {}, "remote media are refused"),
    ],
    ids=["cut", "text", "empty", "missing", "after", "reversed", "option", "thread", "remote"],
)
def test_bad_videos_are_refused_with_the_reason(
    source: bytes | Path | str, options: dict[str, object], reason: str
) -> None:
    with pytest.raises(MediaError, match=reason):
        read(source, **options)


def test_a_decoder_that_hangs_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(decode_worker, "STARTUP_SECONDS", 2.0)
    monkeypatch.setattr(decode_worker, "_idle", [])
    started = time.monotonic()
    with pytest.raises(MediaError, match=r"took over 0.5 s and was stopped"):
        decode_worker.run("hanging_decoder:hang", b"x", {}, 0.5)
    assert time.monotonic() - started < 30


def test_a_decoder_that_crashes_is_an_error_of_its_medium(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(decode_worker, "_idle", [])
    with pytest.raises(MediaError, match="the decoder crashed"):
        decode_worker.run("hanging_decoder:crash", b"x", {}, 30)
    assert read(clip(), frames=2).array.shape[0] == 2


# Real files, where MMRL_TEST_DATA names the folder that holds them.


def real(name: str) -> Path:
    folder = os.environ.get("MMRL_TEST_DATA")
    if not folder:
        pytest.skip("MMRL_TEST_DATA is not set: no real media")
    found = sorted(Path(folder).rglob(name))
    if not found:
        pytest.skip(f"no {name} under MMRL_TEST_DATA")
    return found[0]


def test_real_clip_has_the_times_of_its_frame_table(reader: str) -> None:
    table = json.loads(real("nasa_13013.mp4.stream3.all_frames_info.json").read_text())
    media = read(real("nasa_13013.mp4"), reader=reader, frames=40)
    shown = [float(table[i]["pts_time"]) for i in media.frame.indices]
    assert media.frame.indices[-1] == len(table) - 1
    assert media.frame.seconds == pytest.approx(shown, abs=1e-4)


@pytest.mark.parametrize("name", ["nasa_13013.mp4", "h265_video.mp4", "av1_video.mkv"])
def test_real_clips_look_the_same_through_every_reader(name: str) -> None:
    path = real(name)
    seen = []
    for reader in READERS:
        try:
            seen.append(read(path, reader=reader, frames=5))
        except MediaError as error:
            # decord ships an FFmpeg without an AV1 decoder.
            missing = "cannot be loaded" in str(error)
            assert missing or (name, reader) == ("av1_video.mkv", "decord"), error
    first, *others = seen
    assert others or name == "av1_video.mkv"
    for media in others:
        assert media.frame.indices == first.frame.indices
        difference = np.abs(media.array.astype(int) - first.array.astype(int))
        assert difference.mean() < 1  # another FFmpeg rounds colours differently


def test_real_sound_is_of_the_same_stream_through_either_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file holds two; the clip's own is the one that players choose."""
    usable("torchcodec")
    heard = []
    for _ in range(2):
        header, (samples,) = sound.read_container(real("nasa_13013.mp4"), {"start": 2, "end": 4})
        heard.append(sound.mono(samples)[: 2 * header["rate"] - 2048])
        monkeypatch.setattr(readers, "load_torchcodec", lambda: missing())
    assert header["reader"].startswith("av")
    first, second = (samples[: min(map(len, heard))] for samples in heard)
    # The readers may begin some samples apart: what is heard is the same.
    spectra = [np.abs(np.fft.rfft(samples)) for samples in (first, second)]
    assert np.corrcoef(*spectra)[0, 1] > 0.98


def missing() -> None:
    raise ImportError("not here")


def test_real_clip_keeps_its_sound() -> None:
    media = read(real("nasa_13013.mp4"), audio=True, start=2.0, end=4.0)
    assert media.track is not None
    assert len(media.track) == pytest.approx(2 * RATE, abs=RATE * 0.05)
    assert media.track.std() > 0.01

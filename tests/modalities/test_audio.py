"""Sound arrives as one channel at the model's rate; what is no sound is refused with the reason."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import pytest

from mmrl.errors import MediaError
from mmrl.modalities.audio import decode
from mmrl.types import Media, MediaRef
from tests.modalities.test_video import clip, real

pytest.importorskip("soundfile")
pytest.importorskip("torchaudio")


def wav(seconds: float, rate: int = 32_000, hertz: tuple[float, ...] = (500.0,)) -> bytes:
    """A 16-bit WAV with a tone for each channel."""
    times = np.arange(int(seconds * rate)) / rate
    channels = np.stack([0.5 * np.sin(2 * np.pi * f * times) for f in hertz], axis=1)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(len(hertz))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((channels * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def read(source: bytes | Path | str, **options: object) -> Media:
    return decode(MediaRef("audio", source, options))


def peaks(media: Media, count: int) -> list[float]:
    spectrum = np.abs(np.fft.rfft(media.array))
    bins = np.sort(np.argsort(spectrum)[-count:])
    return (bins * media.rate / len(media.array)).tolist()


def test_resampled_and_mixed_down() -> None:
    media = read(wav(1.0, rate=32_000, hertz=(500.0, 2000.0)))
    assert media.array.dtype == np.float32
    assert (len(media.array), media.rate) == (16_000, 16_000)
    assert peaks(media, 2) == pytest.approx([500, 2000], abs=2)
    assert media.array.std() == pytest.approx(0.25, rel=0.02)  # mean of two tones of 0.5
    assert media.frame.seconds == (0.0, 1.0)


def test_segment_is_read_and_remembered() -> None:
    whole, part = read(wav(2.0)), read(wav(2.0), start=0.5, end=1.25)
    assert len(part.array) == 12_000
    assert part.frame.seconds == (0.5, 1.25)
    assert part.hash != whole.hash


def test_length_rule() -> None:
    with pytest.raises(MediaError, match="over max_seconds=1: give a segment"):
        read(wav(2.0), max_seconds=1.0)
    cut = read(wav(2.0), max_seconds=1.0, too_long="cut")
    assert len(cut.array) == 16_000
    assert cut.frame.seconds == (0.0, 1.0)


def test_sound_of_a_container() -> None:
    media = read(clip(tone_seconds=1.0))
    assert peaks(media, 1) == pytest.approx([440], abs=5)
    assert media.frame.reader.startswith(("torchcodec", "av"))


@pytest.mark.parametrize(
    ("source", "options", "reason"),
    [
        (wav(0.0), {}, "audio of 0 s is under min_seconds"),
        (wav(1.0)[:20], {}, "not readable audio|damaged"),
        (b"", {}, "empty audio file"),
        (b"no sound" * 10, {}, "not readable audio"),
        (clip(), {}, "audio"),
        (wav(1.0), {"start": 3.0}, "segment starts at 3 s of 1 s"),
        (wav(1.0), {"start": 0.5, "end": 0.2}, "before it starts"),
        (Path("/nonexistent/a.wav"), {}, "no audio at"),
        ("http://example.org/a.wav", {}, "remote media are refused"),
    ],
    ids=["zero", "cut", "empty", "text", "silent clip", "after", "reversed", "missing", "remote"],
)
def test_bad_audio_is_refused_with_the_reason(
    source: bytes | Path | str, options: dict[str, object], reason: str
) -> None:
    with pytest.raises(MediaError, match=reason):
        read(source, **options)


def test_damaged_floats_are_refused() -> None:
    import soundfile

    buffer = io.BytesIO()
    samples = np.zeros(8000, dtype=np.float32)
    samples[10] = np.nan
    soundfile.write(buffer, samples, 16_000, format="WAV", subtype="FLOAT")
    with pytest.raises(MediaError, match="not finite"):
        read(buffer.getvalue())


def test_a_real_recording_of_32_khz_keeps_its_length_and_its_low_half() -> None:
    import soundfile

    path = real("3fe64f3d-*.wav")
    samples, rate = soundfile.read(path, dtype="float32")
    media = read(path)
    assert (rate, media.rate, len(media.array)) == (32_000, 16_000, len(samples) // 2)
    assert media.frame.seconds == pytest.approx((0.0, len(samples) / rate))
    own = np.abs(np.fft.rfft(samples))[: len(media.array) // 2] / 2
    kept = np.abs(np.fft.rfft(media.array))[: len(own)]
    low = slice(0, int(0.9 * len(own)))  # the filter's edge is at 8 kHz
    assert np.corrcoef(own[low], kept[low])[0, 1] > 0.999
    assert kept[low].sum() == pytest.approx(own[low].sum(), rel=0.02)


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("sample.wav", 2.205), ("sample.mp3", 2.205), ("nasa_13013.mp4.audio.mp3", 13.056)],
)
def test_real_audio(name: str, seconds: float) -> None:
    media = read(real(name))
    assert len(media.array) / 16_000 == pytest.approx(seconds, abs=0.06)
    assert media.array.std() > 0.01


def test_real_wav_and_mp3_of_one_recording_agree() -> None:
    one, other = read(real("sample.wav")).array, read(real("sample.mp3")).array
    length = min(len(one), len(other))
    spectra = [np.abs(np.fft.rfft(a[:length])) for a in (one, other)]
    assert np.corrcoef(*spectra)[0, 1] > 0.98

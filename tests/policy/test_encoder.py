"""Media are decoded once, ahead of need, within a bounded store; failures are not kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mmrl.errors import MediaError, PromptTooLong, UserError
from mmrl.policy import encoder as module
from mmrl.policy.encoder import Encoder
from mmrl.policy.family import Limits
from mmrl.policy.policy import Policy
from mmrl.types import EncodedMedium, Media, MediaRef, Sample, Text
from tests.conftest import noise_image

Asker = Callable[..., Sample]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads that decoded something, in order."""
    names: list[str] = []
    inner = module.decode

    def counting(ref: MediaRef) -> Media:
        names.append(threading.current_thread().name)
        return inner(ref)

    monkeypatch.setattr(module, "decode", counting)
    return names


def wait_for(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert done()


def test_each_medium_is_decoded_once_ahead_of_need(
    policy: Policy, ask: Asker, decoded: list[str]
) -> None:
    made = Encoder(policy.family)
    samples = [ask("a", (112, 112, 0)), ask("b", (112, 112, 0), (84, 84, 1)), ask("c", (84, 84, 1))]
    made.prefetch(samples)
    wait_for(lambda: len(decoded) == 2)
    prompts = [made.prompt(sample) for sample in samples]
    assert len(decoded) == 2
    assert all(name.startswith("mmrl-media") for name in decoded)
    assert prompts[0].media[0] is prompts[1].media[0]
    assert prompts[0].ids.tolist() == Encoder(policy.family).prompt(samples[0]).ids.tolist()
    made.close()


def test_what_is_kept_is_bounded(policy: Policy, ask: Asker, decoded: list[str]) -> None:
    """By bytes: of six pictures two, of which one is four times as large, or one of them alone."""
    small, large = [ask("a", (56, 56, seed)) for seed in range(6)], ask("b", (112, 112, 9))
    one = Encoder(policy.family).prompt(small[0]).media[0]
    each = sum(tensor.nbytes for tensor in one.tensors.values())
    made = Encoder(policy.family, max_kept_bytes=2 * each)
    decoded.clear()
    for sample in small:
        made.prompt(sample)
    for sample in small[-2:]:
        made.prompt(sample)
    assert len(decoded) == 6
    made.prompt(small[0])
    assert len(decoded) == 7
    made.prompt(large)  # more than may be kept, alone
    assert not made._kept and not made._bytes


def test_small_pictures_are_kept_in_any_number(
    policy: Policy, ask: Asker, decoded: list[str]
) -> None:
    made = Encoder(policy.family)
    samples = [ask("a", (28, 28, seed)) for seed in range(520)]
    for _ in range(2):
        made.prompt(samples[0])
        for sample in samples:
            made.prompt(sample)
    assert len(decoded) == 520


def test_a_picture_that_had_to_shrink_is_not_held_for_that(policy: Policy) -> None:
    held = noise_image(140, 140, 0).source
    sample = Sample("s", "t", (MediaRef("image", held), Text("How many?")), gold=None)
    whole = Encoder(policy.family).prompt(sample)
    made = limited(policy, len(whole.ids) - 8, "shrink")
    assert made.prompt(sample).shrunk
    assert held not in [v for kept in made._fits.values() for v in _leaves(kept)]
    again = made.prompt(sample)
    assert again.shrunk and again.sample.parts[0] != sample.parts[0]


def _leaves(value: object) -> list[object]:
    """All that a nested value holds."""
    if isinstance(value, MediaRef):
        return [value.source, *_leaves(value.options)]
    if isinstance(value, dict):
        return [leaf for each in value.values() for leaf in _leaves(each)]
    if isinstance(value, tuple | list):
        return [leaf for each in value for leaf in _leaves(each)]
    return [value]


def test_failures_are_raised_when_asked_and_not_kept(policy: Policy, tmp_path: Path) -> None:
    made, path = Encoder(policy.family), tmp_path / "a.png"
    sample = Sample("s", "t", (MediaRef("image", path), Text("?")), gold=None)
    made.prefetch([sample])
    with pytest.raises(MediaError, match="no image at"):
        made.prompt(sample)
    Image.new("RGB", (56, 56)).save(path)
    assert made.prompt(sample).media


def test_options_of_a_run_lie_under_those_of_a_reference(policy: Policy) -> None:
    made = Encoder(policy.family, defaults={"image": {"crop": [0, 0, 56, 56]}})
    ref = noise_image(112, 112, 0)
    own = MediaRef("image", ref.source, {"crop": (0, 0, 112, 84)})
    prompt = made.prompt(Sample("s", "t", (ref, own), gold=None))
    assert [frame.crop for frame in prompt.frames] == [(0, 0, 56, 56), (0, 0, 112, 84)]
    with pytest.raises(UserError, match=r"media.image: unknown key 'crops': did you mean 'crop'"):
        Encoder(policy.family, defaults={"image": {"crops": [0, 0, 1, 1]}})


def test_many_threads_agree(policy: Policy, ask: Asker) -> None:
    samples = [ask("a", (56 + 28 * (i % 3), 84, i)) for i in range(24)]
    made = Encoder(policy.family, workers=4)
    made.prefetch(samples)
    found = [made.prompt(sample).ids.tolist() for sample in samples]
    assert found == [Encoder(policy.family).prompt(sample).ids.tolist() for sample in samples]


def limited(policy: Policy, tokens: int, overflow: module.Overflow) -> Encoder:
    """An encoder whose prompts may have at most so many tokens."""
    policy.family.limits = Limits(max_prompt_tokens=tokens)  # type: ignore[attr-defined]
    return Encoder(policy.family, overflow=overflow)


def test_a_long_prompt_shrinks_its_pictures_and_nothing_else(policy: Policy, ask: Asker) -> None:
    sample = ask((140, 140, 0), "How many?", (140, 84, 1))
    whole = Encoder(policy.family).prompt(sample)
    limit = len(whole.ids) - 15
    prompt = limited(policy, limit, "shrink").prompt(sample)
    assert len(prompt.ids) <= limit and prompt.shrunk and not whole.shrunk
    assert len(prompt.compact_ids) == len(whole.compact_ids), "text and number of pictures stay"
    for small, large in zip(prompt.frames, whole.frames, strict=True):
        assert small.processed_size < large.processed_size
        corner = (float(small.processed_size[0]), float(small.processed_size[1]))
        assert small.to_source(*corner, "processed_pixels") == pytest.approx(small.source_size)
    fitting = limited(policy, len(whole.ids), "shrink").prompt(sample)
    assert fitting.ids.tolist() == whole.ids.tolist() and not fitting.shrunk


def test_a_sample_that_had_to_shrink_is_not_encoded_whole_again(
    policy: Policy, ask: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample, other = ask((140, 140, 0), "How many?"), ask((140, 140, 0), "How?")
    whole = Encoder(policy.family).prompt(sample)
    sizes: list[tuple[int, int]] = []
    encode = policy.family.encode_medium

    def counted(media: Media) -> EncodedMedium:
        sizes.append(media.array.shape[:2])
        return encode(media)

    monkeypatch.setattr(policy.family, "encode_medium", counted)
    made = limited(policy, len(whole.ids) - 8, "shrink")
    made._max_kept_bytes = 0  # nothing of the first draw is left
    first = made.prompt(sample)
    assert sizes[0] == (140, 140) and len(sizes) > 1
    sizes.clear()
    made.prefetch([sample])
    again = made.prompt(sample)
    assert all(size < (140, 140) for size in sizes) and sizes
    assert again.ids.tolist() == first.ids.tolist() and again.shrunk
    made.prompt(other)
    assert (140, 140) in sizes, "another question has its own limit"


def test_what_cannot_shrink_enough_is_refused(policy: Policy, ask: Asker) -> None:
    text = ask("How many? " * 20)
    words = len(Encoder(policy.family).prompt(text).ids)
    with pytest.raises(PromptTooLong, match=f"prompt of {words} tokens is over"):
        limited(policy, words - 1, "shrink").prompt(text)
    picture = ask((140, 140, 0), "How many?")
    least = len(Encoder(policy.family).prompt(ask((56, 56, 0), "How many?")).ids)
    with pytest.raises(PromptTooLong):
        limited(policy, least - 1, "shrink").prompt(picture)


def test_overflow_is_refused_or_ends_the_run_where_wished(policy: Policy, ask: Asker) -> None:
    with pytest.raises(PromptTooLong, match=r"model\.max_prompt_tokens=9"):
        limited(policy, 9, "quarantine").prompt(ask((140, 140, 0)))
    with pytest.raises(UserError, match=r"sample s: prompt of \d+ tokens is over"):
        limited(policy, 9, "fail").prompt(ask((140, 140, 0)))

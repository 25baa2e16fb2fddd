"""What is wrong with a run's answers: that they are cut, unreadable, unscorable, ever longer."""

from __future__ import annotations

from collections.abc import Sequence

from mmrl.runlog.rows import Row, ends, percent, recent, series, trend

TRUNCATED, UNPARSABLE, UNSCORABLE = 0.25, 0.25, 0.02  # alarm above
EMPTY_THOUGHTS = 0.9
LONGER = 2.0  # times the first answers
RISES = 2.0  # standard errors


def blind(rows: Sequence[Row]) -> str | None:
    """Samples that lost their media on the way to the model."""
    total = sum(value for _, value in series(rows, "media/without"))
    if total == 0:
        return None
    return (
        f"{total:.0f} samples were trained without their media; this must be 0: "
        "look for placeholders without features in the family's encode"
    )


def unscorable(rows: Sequence[Row]) -> str | None:
    """Verifiers that fail."""
    share = recent(rows, "share/unscorable")
    if not share > UNSCORABLE:
        return None
    return (
        f"{percent(share)} of answers could not be scored (the verifier failed or ran out of "
        "time) and are left out of the baseline: read their reason in rollouts.jsonl"
    )


def truncated(rows: Sequence[Row], max_new_tokens: int | None) -> str | None:
    """Answers that end at the length limit."""
    share = recent(rows, "share/truncated")
    if not share > TRUNCATED:
        return None
    longest, in_turns = recent(rows, "length/max"), recent(rows, "turns/mean") > 0
    if max_new_tokens and in_turns and longest < max_new_tokens:
        return (
            f"{percent(share)} of episodes end in a turn that is cut short, under "
            f"rollout.max_new_tokens={max_new_tokens}: raise rollout.max_turn_tokens, or "
            "rollout.max_environment_tokens if what is shown does not fit"
        )
    limit = f" of {max_new_tokens} tokens" if max_new_tokens else ""
    return (
        f"{percent(share)} of completions hit the length limit{limit}: raise rollout.max_new_tokens"
    )


def unparsable(rows: Sequence[Row]) -> str | None:
    """Answers that the task cannot read."""
    share = recent(rows, "share/unparsable")
    cut_off = recent(rows, "share/truncated")
    # Answers that were cut off rarely parse; the length limit is then the thing to say.
    if not share - (cut_off if cut_off > TRUNCATED else 0.0) > UNPARSABLE:
        return None
    return (
        f"{percent(share)} of answers do not parse: say the expected form in the prompt, or "
        "train on reference answers first (a supervised phase)"
    )


def thoughtless(rows: Sequence[Row]) -> str | None:
    """Thoughts that are opened and closed with nothing in them."""
    share = recent(rows, "share/empty_thought")
    if not share > EMPTY_THOUGHTS:
        return None
    return (
        f"{percent(share)} of thoughts are empty: reward what a thought must hold, or start from "
        "targets that think (docs/own_data.md)"
    )


def longer(rows: Sequence[Row]) -> str | None:
    """Answers that grow while the reward does not."""
    found = ends(rows, "length/mean")
    if found is None or not found[1] > LONGER * found[0] or trend(rows, "reward/mean") > RISES:
        return None
    return (
        f"answers grew from {found[0]:.0f} to {found[1]:.0f} tokens and the reward did not: take a "
        "length penalty, or a reducer that does not favour length (dr_grpo, dapo)"
    )

"""A user's mistakes and unusable data, told apart from bugs.

`UserError` is one line that says what to do; the command line exits with 2. Of its kind are
`ConfigError` (what a configuration says), `DataError` (what records and media hold) and
`TrainingError` (what a run came to). `MediaError` is of one medium, whose sample is quarantined;
`Terminated` is of a run that was told to end, and did.
"""

from __future__ import annotations


class UserError(Exception):
    """A user's mistake: one line that says what to do; the command line exits with 2.

    Its three kinds say where to look. What is none of them is a command's own, such as an absent
    package.
    """


class ConfigError(UserError):
    """A configuration, an override or an argument names what does not exist or cannot be."""


class DataError(UserError):
    """Records or media that cannot be read, or do not fit what is asked of them."""


class TrainingError(UserError):
    """A run that cannot go on: loss, gradient, answers, checkpoint, or another process of it."""


class Terminated(SystemExit):
    """A run that was told to end and did; exits as a shell counts what a signal ended.

    `code` is 143 for SIGTERM and 129 for SIGHUP.
    """

    def __init__(self, said: str, code: int = 143) -> None:
        super().__init__(code)
        self.said = said

    def __str__(self) -> str:
        return self.said


class Interrupted(KeyboardInterrupt):
    """A run that was interrupted from the keyboard and ended after its step."""


class MediaError(Exception):
    """A medium that cannot be read or does not fit; its sample is quarantined with the reason."""


class PromptTooLong(MediaError):
    """A prompt of `tokens` tokens where `limit` are allowed."""

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(
            f"prompt of {tokens} tokens is over model.max_prompt_tokens={limit}: lower the pixel "
            "or frame budget, raise the limit, or set model.overflow: shrink"
        )
        self.tokens, self.limit = tokens, limit


def one_line(error: BaseException, limit: int = 200) -> str:
    r"""The words of an error on one line, cut after `limit` characters.

    >>> one_line(ValueError("no such\n   column"), limit=10)
    'no such co'
    """
    return " ".join(str(error).split())[:limit]

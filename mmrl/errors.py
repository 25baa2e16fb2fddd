"""A user's mistakes and unusable data, told apart from bugs."""


class UserError(Exception):
    """A user's mistake: one line that says what to do; the command line exits with 2."""


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
    """The words of an error on one line, cut after `limit` characters."""
    return " ".join(str(error).split())[:limit]

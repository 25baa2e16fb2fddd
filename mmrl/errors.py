"""The two ways a run ends early, told apart from bugs."""


class UserError(Exception):
    """A user's mistake: one line that says what to do; the command line exits with 2."""


class MediaError(Exception):
    """A medium that cannot be read or does not fit; its sample is quarantined with the reason."""

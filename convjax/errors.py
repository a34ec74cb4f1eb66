"""What goes wrong for the user to know: the two errors whose message is all that is shown."""


class UserError(ValueError):
    """The user's input was wrong. The message is one line: what was wrong, what was expected, what to do."""


class UnavailableError(RuntimeError):
    """The world is not as needed (no network, no disk, ...). The message is one line for the user."""

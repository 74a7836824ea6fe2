"""The error that the command line shows as one line."""


class InputError(ValueError):
    """What the user gave cannot be used; the message names the thing and the way out."""

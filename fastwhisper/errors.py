"""The error that the command line shows as one line, and the checks that every room makes."""


class InputError(ValueError):
    """What the user gave cannot be used; the message names the thing and the way out."""


def check_positive(**numbers: int) -> None:
    """Check that settings are 1 or more.

    Raises:
        InputError: for the first that is not; it names the setting and its value.
    """
    for name, number in numbers.items():
        if number < 1:
            raise InputError(f"{name} must be 1 or more, not {number}")

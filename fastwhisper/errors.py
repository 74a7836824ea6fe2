"""The error that the command line shows as one line, and a check that every room shares."""


class InputError(ValueError):
    """Input that cannot be used; the message says what is wrong and how to fix it."""


def check_positive(**numbers: int) -> None:
    """Check that settings are 1 or more.

    Raises:
        InputError: for the first that is not; the message names the setting and its value.
    """
    for name, number in numbers.items():
        if number < 1:
            raise InputError(f"{name} must be 1 or more, not {number}")

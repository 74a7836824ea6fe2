"""Errors that the command line shows as one line, the end by a signal, and checks that every room shares."""

import importlib.util
import math
import signal


class InputError(ValueError):
    """Input that cannot be used; the message says what is wrong and how to fix it."""


class Stopped(KeyboardInterrupt):
    """The end of a run by SIGINT or SIGTERM; the message says how to go on.

    Args:
        message (`str`): one line.
        signal_number (`int`): the signal that ended it.
    """

    def __init__(self, message: str, signal_number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def check_positive(**numbers: int) -> None:
    """Check that settings are 1 or more.

    Raises:
        InputError: for the first that is not; the message names the setting and its value.
    """
    for name, number in numbers.items():
        if number < 1:
            raise InputError(f"{name} must be 1 or more, not {number}")


def check_seed(seed: int) -> None:
    """Check that a seed is one.

    Raises:
        InputError: if it is not.
    """
    if not 0 <= seed < 2**63:
        raise InputError(f"seed must be from 0 to 2**63 - 1, not {seed}")


def check_probabilities(**shares: float) -> None:
    """Check that settings are from 0 to 1.

    Raises:
        InputError: for the first that is not; the message names the setting and its value.
    """
    for name, share in shares.items():
        if not 0.0 <= share <= 1.0:
            raise InputError(f"{name}={share} is not a probability: it must be from 0 to 1")


def check_finite(**numbers: float) -> None:
    """Check that settings are neither infinite nor NaN.

    Raises:
        InputError: for the first that is; it names the setting and its value.
    """
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise InputError(f"{name} must be a finite number, not {number}")


def check_installed(*packages: str, extra: str) -> None:
    """Check that optional packages are there, without importing them.

    Args:
        packages (`str`): as they are imported.
        extra (`str`): of this package, which installs them.

    Raises:
        InputError: if one is missing; the message has the command that installs it.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise InputError(f'{package} is not installed: pip install "fastwhisper[{extra}]"')

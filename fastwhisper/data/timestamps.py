"""Whisper's timestamps in text, as in `<|0.00|> Hello.<|1.20|>`: write, find and remove them."""

import re

# Seconds from one of Whisper's timestamps to the next, and the steps to its last: 30 s.
RESOLUTION = 0.02
_LAST_STEP = 1500

_TIMESTAMP = re.compile(r"<\|\d+\.\d\d\|>")
_GAP = re.compile(rf"\s*(?:{_TIMESTAMP.pattern}\s*)+")
# What openai's and distil-whisper's label scripts leave around a transcript, all of it or in part: an earlier text,
# Whisper's prompt and its end.
_PROMPT = re.compile(
    r"\s*(?:<\|startofprev\|>.*?(?=<\|startoftranscript\|>))?"
    r"(?:<\|startoftranscript\|>)?(?:<\|[a-z]{2,3}\|>)?(?:<\|(?:transcribe|translate)\|>)?(?:<\|notimestamps\|>)?",
    re.DOTALL,
)
_END = re.compile(r"(?:<\|endoftext\|>\s*)+$")


def timestamp_token(seconds: float) -> str:
    """The token of the nearest time that has one, for example `<|1.20|>`."""
    return f"<|{round(seconds / RESOLUTION) * RESOLUTION:.2f}|>"


def timestamp_step(token: str) -> int | None:
    """How many steps after 0 a timestamp is; `None` if Whisper has none for its time."""
    step = round(float(token.strip("<|>")) / RESOLUTION)
    return step if step <= _LAST_STEP and timestamp_token(step * RESOLUTION) == token else None


def has_timestamps(text: str) -> bool:
    """Whether there is a timestamp in the text."""
    return _TIMESTAMP.search(text) is not None


def at_timestamps(text: str) -> list[str]:
    """Text and timestamps alternating, text first and last, either of which may be empty."""
    return re.split(f"({_TIMESTAMP.pattern})", without_prompt(text))


def without_prompt(text: str) -> str:
    """The text of an output of Whisper without its prompt and `<|endoftext|>`; other text as it is.

    An output begins with a token of the prompt, or has timestamps.
    """
    prompt = _PROMPT.match(text)
    begin = prompt.end() if prompt and prompt[0].strip() else 0
    return _END.sub("", text[begin:]) if begin or has_timestamps(text) else text


def without_timestamps(text: str, between: str = " ") -> str:
    """Only the words; a text without timestamps as it is.

    Args:
        text (`str`): with or without timestamps.
        between (`str`, *optional*): replaces timestamps that are not separated from the words by a space.
    """
    bare = without_prompt(text)
    if bare == text and not has_timestamps(text):
        return text
    return _GAP.sub(lambda gap: " " if re.search(r"\s", gap[0]) else between, bare).strip()

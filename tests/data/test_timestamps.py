"""Timestamps written, found, and left out with the words whole."""

import pytest

from fastwhisper.data.timestamps import has_timestamps, timestamp_step, timestamp_token, without_timestamps

STAMPED = "<|0.00|> Author of the danger trail,<|1.64|><|1.64|> Philip Steels, etc.<|3.20|>"
PLAIN = "Author of the danger trail, Philip Steels, etc."


def test_every_timestamp_of_whisper():
    tokens = [timestamp_token(step * 0.02) for step in range(1501)]
    assert tokens[:2] == ["<|0.00|>", "<|0.02|>"] and tokens[-1] == "<|30.00|>" and len(set(tokens)) == 1501
    assert [timestamp_step(token) for token in tokens] == list(range(1501))
    assert timestamp_token(1.199) == "<|1.20|>" and timestamp_token(0.029) == "<|0.02|>"
    assert timestamp_step("<|0.01|>") is timestamp_step("<|30.02|>") is None


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (STAMPED, PLAIN),
        (STAMPED.replace("> ", ">").replace("<|1.64|><|1.64|>", "<|1.64|> <|1.64|>"), PLAIN),
        (f"<|startoftranscript|><|en|><|transcribe|>{STAMPED}<|endoftext|>", PLAIN),
        ("<|startoftranscript|><|notimestamps|> Hello.<|endoftext|>", "Hello."),
        (f"<|en|><|transcribe|>{STAMPED}", PLAIN),
        (f"<|transcribe|>{STAMPED}<|endoftext|>\n", PLAIN),
        (f"{STAMPED}<|endoftext|><|endoftext|>", PLAIN),
        (f"<|startofprev|> before<|startoftranscript|><|en|><|transcribe|>{STAMPED}<|endoftext|>", PLAIN),
        ("<|startofprev|> before<|startoftranscript|><|en|><|notimestamps|> Hello.<|endoftext|>", "Hello."),
        ("<|notimestamps|> Hello.<|endoftext|>", "Hello."),
        ("<|0.00|>Hello<|1.00|>world<|2.00|>", "Hello world"),
        ("<|0.00|><|1.00|>", ""),
        (" no times, <|en|> and <|endoftext|> ", " no times, <|en|> and <|endoftext|> "),
        ("<|1|> and <|1.2|> are none", "<|1|> and <|1.2|> are none"),
        ("", ""),
    ],
)
def test_the_words_alone(text, plain):
    assert without_timestamps(text) == plain
    assert has_timestamps(text) is ("<|0.00|>" in text)


def test_the_words_of_languages_without_spaces():
    assert without_timestamps("<|0.00|>你好<|1.00|><|1.00|>世界<|2.00|>", between="") == "你好世界"

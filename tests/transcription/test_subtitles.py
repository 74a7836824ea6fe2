"""Subtitles parsed back by the grammar of their formats."""

import html
import json
import re

import pytest

from fastwhisper.transcription.subtitles import WRITERS, cues, to_json, to_srt, to_txt, to_vtt
from fastwhisper.transcription.transcripts import Segment, Transcript, Word, in_order

NASTY = Transcript(
    text="R&D <i>costs</i> more --> less. Then nothing.",
    duration=3661.5,
    segments=[
        Segment("R&D <i>costs</i>\n\nmore --> less.", 0.0, 1.9996, [Word("R&D", 0.0, 0.3), Word("more", 0.9, 1.2)]),
        Segment(" ", 2.0, 2.1),
        Segment("Then", 1.5, 1.4),
        Segment("nothing.", 3661.123, 3661.5),
    ],
    language="en",
)
TIME = r"(\d\d+):([0-5]\d):([0-5]\d)[.,](\d{3})"


def seconds(text: str) -> float:
    hours, minutes, whole, thousandths = map(int, re.fullmatch(TIME, text).groups())
    return 3600 * hours + 60 * minutes + whole + thousandths / 1000


def parse(block: str) -> tuple[float, float, str]:
    stamps, text = block.split("\n")
    start, end = stamps.split(" --> ")
    return seconds(start), seconds(end), text


def check_order(times: list[tuple[float, float, str]]) -> None:
    ends = [0.0, *(end for _, end, _ in times)]
    assert all(start < end for start, end, _ in times)
    assert all(end <= start for end, (start, _, _) in zip(ends[:-1], times, strict=True))


def test_srt_reads_back():
    blocks = to_srt("a.wav", NASTY).rstrip("\n").split("\n\n")
    assert [block.split("\n")[0] for block in blocks] == ["1", "2", "3"]
    times = [parse(block.split("\n", 1)[1]) for block in blocks]
    check_order(times)
    assert times[0] == (0.0, 2.0, "R&D <i>costs</i> more -> less.")
    assert times[2] == (3661.123, 3661.5, "nothing.")
    assert "01:01:01,123 --> 01:01:01,500" in to_srt("a.wav", NASTY)


def test_vtt_reads_back():
    header, *blocks = to_vtt("a.wav", NASTY).rstrip("\n").split("\n\n")
    assert header == "WEBVTT"
    times = [parse(block) for block in blocks]
    check_order(times)
    marked = times[0][2]
    assert "-->" not in marked and marked.count("<") == 1
    stamp = re.search(r"<([\d:.]+)>", marked)
    assert seconds(stamp[1]) == 0.9 and html.unescape(marked[stamp.end() :]) == "more --> less."
    assert html.unescape(re.sub(r"<[\d:.]+>", "", marked)) == "R&D <i>costs</i> more --> less."


def test_json_reads_back():
    line = to_json("a.wav", NASTY)
    assert line.count("\n") == 1
    found = json.loads(line)
    assert found["file"] == "a.wav" and found["text"] == NASTY.text and found["duration"] == 3661.5
    assert found["segments"][0]["words"][1] == {"text": "more", "start": 0.9, "end": 1.2}


def test_txt_is_the_text():
    assert to_txt("a.wav", NASTY) == NASTY.text + "\n"


@pytest.mark.parametrize("kind", ["txt", "srt", "vtt", "json"])
def test_silence_is_a_valid_file(kind):
    assert WRITERS[kind]("a.wav", Transcript("", 1.0, [])).endswith(("\n", "")) and not cues(Transcript("", 1.0, []))


def test_segments_come_into_order():
    word = Word("a", 5.0, 4.0)
    heard = [Segment("one", -1.0, 2.0), Segment("two", 1.0, 1.5, [word]), Segment("three", 3.0, 9.0)]
    segments = list(in_order(heard, 4.0))
    assert [(segment.start, segment.end) for segment in segments] == [(0.0, 2.0), (2.0, 2.0), (3.0, 4.0)]
    assert segments[1].words == [Word("a", 4.0, 4.0)]

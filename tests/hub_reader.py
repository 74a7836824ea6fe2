"""What a user of the Hub does with a student, as a program for an environment with transformers and torch alone.

    python tests/hub_reader.py STUDENT TEACHER RECORDING.wav

STUDENT and TEACHER are folders or names on the Hub, the recording is 16 kHz, mono, 16 bit, and longer than the
model's window. Prints one line of JSON. Nothing but numpy, torch and transformers is imported, so that any
environment can run it: the lowest and the newest versions, too.
"""

import json
import sys
import tempfile
import wave
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    WhisperForCausalLM,
    WhisperForConditionalGeneration,
    pipeline,
)

RATE = 16_000
CALLS = {
    "basic": {},
    "language and task": {"generate_kwargs": {"language": "en", "task": "transcribe"}},
    "segments": {"return_timestamps": True},
    "words": {"return_timestamps": "word"},
    "language": {"return_language": True},
    "chunks": {"chunk_length_s": 3, "stride_length_s": 0.5},
    "batch": {"batch_size": 2},
}


def read_wave(path: str) -> np.ndarray:
    with wave.open(path) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2), path
        return np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768


def load_everyhow(student: str) -> dict:
    """Class, its origin and logits by each way of loading."""
    answers = {}
    for auto in (AutoModelForSpeechSeq2Seq, AutoModel):
        for trust in (True, False):
            model = auto.from_pretrained(student, trust_remote_code=trust).eval()
            if not isinstance(model, WhisperForConditionalGeneration):
                continue  # a plain WhisperModel has no logits
            answers[f"{auto.__name__} {trust}"] = look_at(model)
    return answers


@torch.no_grad()
def look_at(model) -> list:
    # No frame is padding, so that a student at true length hears all of them as well.
    shape = (1, model.config.num_mel_bins, 2 * model.config.max_source_positions)
    features = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    logits = model(features, decoder_input_ids=torch.arange(3, 9)[None]).logits
    return [type(model).__name__, type(model).__module__.partition(".")[0], logits[0, -1, :16].tolist()]


def save_again(student: str) -> dict:
    """What loads from a folder that the trusted and the plain class saved again."""
    answers = {}
    with tempfile.TemporaryDirectory() as folder:
        for trust in (True, False):
            model = AutoModelForSpeechSeq2Seq.from_pretrained(student, trust_remote_code=trust)
            model.save_pretrained(Path(folder, str(trust)))
            loaded = AutoModelForSpeechSeq2Seq.from_pretrained(Path(folder, str(trust)), trust_remote_code=trust)
            answers[str(trust)] = look_at(loaded)
            config = json.loads(Path(folder, str(trust), "config.json").read_text())
            answers[f"{trust} auto_map"] = sorted(config.get("auto_map", {}))
    return answers


def transcribe(student: str, recording: np.ndarray) -> dict:
    """What the pipeline says with and without trust, and what `generate` says."""
    config, processor = AutoConfig.from_pretrained(student), AutoProcessor.from_pretrained(student)
    window = int(config.max_source_positions / 50 * RATE)
    short, long = recording[:window], recording
    answers: dict = {}
    for trust in (True, False):
        transcriber = pipeline("automatic-speech-recognition", model=student, trust_remote_code=trust)
        transcriber.model.config.true_length = False  # as the plain class hears it
        said = answers[f"pipeline {trust}"] = {}
        for name, options in CALLS.items():
            sound = {"chunks": long, "batch": [short, recording[-window:]]}.get(name, short)
            sound = [one.copy() for one in sound] if isinstance(sound, list) else sound.copy()
            said[name] = transcriber(sound, **options)
        said["over the window"] = transcriber(long.copy(), return_timestamps=True)
    model = AutoModelForSpeechSeq2Seq.from_pretrained(student)

    def say(sound: np.ndarray, over: bool = False, **options) -> str:
        padding = {"truncation": False, "padding": "longest"} if over else {}
        inputs = processor(sound, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True, **padding)
        return processor.batch_decode(model.generate(**inputs, **options), skip_special_tokens=True)[0]

    answers["generate"] = {
        "basic": say(short),
        "language and task": say(short, language="en", task="transcribe"),
        "segments": say(short, return_timestamps=True),
        "batch": [say(short), say(recording[-window:])],
        "over the window": say(long, over=True, return_timestamps=True),
    }
    return answers


def speculate(student: str, teacher: str, recording: np.ndarray) -> dict:
    """Tokens of the teacher alone, and with the student's decoder as its assistant."""
    processor = AutoProcessor.from_pretrained(teacher)
    model = WhisperForConditionalGeneration.from_pretrained(teacher)
    assistant = WhisperForCausalLM.from_pretrained(student)
    features = processor(recording, sampling_rate=RATE, return_tensors="pt").input_features
    return {
        "alone": model.generate(features, num_beams=1)[0].tolist(),
        "assisted": model.generate(features, num_beams=1, assistant_model=assistant)[0].tolist(),
    }


def main(student: str, teacher: str, recording: str) -> None:
    torch.set_num_threads(1)
    samples = read_wave(recording)
    answers = {
        "transformers": transformers.__version__,
        "loaded": load_everyhow(student),
        "saved again": save_again(student),
        "said": transcribe(student, samples),
        "speculative": speculate(student, teacher, samples),
    }
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])

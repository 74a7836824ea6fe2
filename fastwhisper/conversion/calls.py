"""What a user types to run an exported folder: the README.md in it."""

from transformers import WhisperForConditionalGeneration

from ..transcription.true_length import is_true_length
from .to_openai import alignment_dump

_CALLS = {
    "whisper": """An ordinary Whisper folder for transformers, vLLM and any engine's own converter.

```sh
vllm serve FOLDER
```

```python
from transformers import pipeline

print(pipeline("automatic-speech-recognition", model="FOLDER")("speech.wav")["text"])
```
""",
    "ctranslate2": """For CTranslate2 and faster-whisper.

```python
from faster_whisper import WhisperModel

segments, _ = WhisperModel("FOLDER").transcribe("speech.wav", beam_size=1, word_timestamps=True)
print([segment.text for segment in segments])
```

The same audio through fastwhisper, as txt, srt, vtt or json:

```sh
fastwhisper transcribe speech.wav --model FOLDER --engine ctranslate2
```
""",
    "onnx": """For ONNX Runtime, in float32: `encoder_model.onnx` from `input_features` to `last_hidden_state`, and
`decoder_model.onnx` from `input_ids` and `encoder_hidden_states` to `logits`. The decoder has no cache: it reads the
whole text at each step.

```python
import numpy as np
import onnxruntime
from transformers import WhisperProcessor
from transformers.audio_utils import load_audio

encoder = onnxruntime.InferenceSession("FOLDER/encoder_model.onnx")
decoder = onnxruntime.InferenceSession("FOLDER/decoder_model.onnx")
processor = WhisperProcessor.from_pretrained("FOLDER")
audio = load_audio("speech.wav", sampling_rate=16_000)  # at most 30 s
features = processor(audio, sampling_rate=16_000, return_tensors="np").input_features
(states,) = encoder.run(None, {"input_features": features})
ids = processor.tokenizer.convert_tokens_to_ids(PROMPT)
while len(ids) < LONGEST and ids[-1] != processor.tokenizer.eos_token_id:
    inputs = {"input_ids": np.array([ids]), "encoder_hidden_states": states}
    ids.append(int(decoder.run(None, inputs)[0][0, -1].argmax()))
print(processor.decode(ids, skip_special_tokens=True))
```
""",
    "ggml": """For whisper.cpp.

```sh
whisper-cli -m FOLDER/ggml-model.bin -f speech.wav
```

```python
from pywhispercpp.model import Model

print([segment.text for segment in Model("FOLDER/ggml-model.bin").transcribe("speech.wav")])
```
""",
    "openai": """For openai-whisper. The file has no place for the heads that word times are read from.

```python
import whisper

model = whisper.load_model("FOLDER/model.pt")
model.set_alignment_heads(HEADS)
print(model.transcribe("speech.wav", word_timestamps=True)["text"])
```
""",
}
_TRUE_LENGTH = {
    "onnx": """The model was trained to hear a clip at its own length, which is much quicker on short
ones: keep as many features as the clip has, MARGIN s more, rounded up to a second.

```python
features = features[..., : 100 * math.ceil(len(audio) / 16_000 + MARGIN)]
```
""",
    "ggml": """The model was trained to hear a clip at its own length, which is much quicker on short
ones: 50 positions a second of the clip and MARGIN s more, rounded up to a second.

```python
seconds = math.ceil(clip_seconds + MARGIN)  # of a clip of at most 30 s
Model("FOLDER/ggml-model.bin").transcribe("speech.wav", audio_ctx=50 * seconds)
```
""",
    "openai": "The model hears 30 s here, and its own length of a clip only in fastwhisper and CTranslate2.\n",
    "whisper": "The model hears 30 s here, and its own length of a clip only in fastwhisper and CTranslate2.\n",
    "ctranslate2": """The model was trained to hear a clip at its own length, which is much quicker on short
ones. The command above does so. faster-whisper pads every clip to 30 s, whatever its `chunk_length`; at its own length
the call is:

```python
import math

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel, decode_audio

model = WhisperModel("FOLDER")
audio = decode_audio("speech.wav")  # at most 30 s
seconds = min(30, math.ceil(len(audio) / 16_000 + MARGIN))
padding = 16_000 * seconds + 320 - len(audio)
features = model.feature_extractor(audio, padding=padding)[None, :, : 100 * seconds]
features = ctranslate2.StorageView.from_array(np.ascontiguousarray(features))
(result,) = model.model.generate(features, [PROMPT], beam_size=1)
print(model.hf_tokenizer.decode(result.sequences_ids[0]))
```
""",
}


def how_to_call(name: str, model: WhisperForConditionalGeneration, to: str) -> str:
    """Markdown that says what an exported folder is and how it is called.

    Args:
        name (`str`): of the model.
        model (`WhisperForConditionalGeneration`): as it was loaded.
        to (`str`): the engine.
    """
    parts = [f"# {name}\n", "FOLDER is this folder.\n", _CALLS[to]]
    if is_true_length(model):
        parts.append(_TRUE_LENGTH[to])
    return _filled("\n".join(parts), model)


def _filled(text: str, model: WhisperForConditionalGeneration) -> str:
    prompt = ["<|startoftranscript|>"]
    if getattr(model.generation_config, "is_multilingual", True):
        prompt += ["<|en|>", "<|transcribe|>"]
    values = {
        "PROMPT": str([*prompt, "<|notimestamps|>"]).replace("'", '"'),
        "MARGIN": str(getattr(model.config, "true_length_margin", 0.0)),
        "LONGEST": str(model.config.max_target_positions),
        "HEADS": str(alignment_dump(model)),
    }
    for name, value in values.items():
        text = text.replace(name, value)
    return text

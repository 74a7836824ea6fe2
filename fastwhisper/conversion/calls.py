"""What a user types to run an exported folder: the README.md in it."""

from transformers import WhisperForConditionalGeneration

from ..transcription.true_length import is_true_length

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
}
_TRUE_LENGTH = {
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
    parts = [f"# {name}\n", _CALLS[to]]
    if is_true_length(model):
        parts.append(_TRUE_LENGTH[to])
    return _filled("\n".join(parts), model)


def _filled(text: str, model: WhisperForConditionalGeneration) -> str:
    prompt = ["<|startoftranscript|>"]
    if getattr(model.generation_config, "is_multilingual", True):
        prompt += ["<|en|>", "<|transcribe|>"]
    margin = getattr(model.config, "true_length_margin", 0.0)
    return text.replace("PROMPT", str([*prompt, "<|notimestamps|>"]).replace("'", '"')).replace("MARGIN", str(margin))

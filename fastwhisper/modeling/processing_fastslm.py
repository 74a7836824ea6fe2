"""Processor of FastSLM: chats with audio to token ids and windows of log-mel features."""

import math
from collections.abc import Sequence
from typing import Any

from transformers.utils.versions import require_version

# ruff: noqa: E402
# Before importing what earlier versions lack, so that the error is one line that says so.
require_version("transformers>=5.20")

import numpy as np
import torch
from transformers import (
    BatchFeature,
    FeatureExtractionMixin,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.audio_utils import (
    make_audio_chat_template_content,
    make_list_of_audio,
    make_list_of_audio_chat_template,
)
from transformers.processing_utils import AudioKwargs, ProcessingKwargs

from ..configuration.configuration_fastslm import MEL_FRAMES_PER_ENCODER_FRAME, tokens_in_window
from .chat_checks_fastslm import checked_chats
from .chat_templates_fastslm import CHATML_TEMPLATE, FLATTEN_TEMPLATE
from .speech_tokens import AUDIO_TOKENS, TASK_TOKENS, add_speech_tokens
from .waveforms import SAMPLING_RATE, mono_samples
from .window_clock import clock

TRANSCRIPTION_PROMPT = "Transcribe the audio clip into text."
FEATURE_WINDOWS_AT_ONCE = 16


class FastSLMAudioKwargs(AudioKwargs, total=False):
    """Adds `tokens_per_window` and `window_times` to what an audio call may choose."""

    tokens_per_window: int | None
    window_times: bool | None


class FastSLMProcessorKwargs(ProcessingKwargs, total=False):
    """Arguments of a call, by modality."""

    audio_kwargs: FastSLMAudioKwargs  # type: ignore[misc]

    # Before transformers 5.23 the defaults are looked up only here, since then also here.
    _defaults = {  # type: ignore[misc]
        "text_kwargs": {"padding": True, "padding_side": "left", "return_tensors": "pt"},
        "audio_kwargs": {"sampling_rate": SAMPLING_RATE, "return_tensors": "pt"},
    }


class FastSLMProcessor(ProcessorMixin):
    r"""Turns chats, texts and audio into the inputs of [`FastSLMForCausalLM`].

    Args:
        feature_extractor (`WhisperFeatureExtractor`): Of the speech encoder; its window is the encoder's.
        tokenizer (`PreTrainedTokenizerBase`): Of the language model, with the tokens of `add_speech_tokens`.
        chat_template (`str`, *optional*): A Jinja template for chats whose contents may have `audio` parts.
        audio_token (`str`, *optional*, defaults to `"<|AUDIO|>"`): The placeholder of one audio in a text.
        max_source_positions (`int`, *optional*, defaults to 1500): Encoder frames of a window.
        num_queries (`int`, *optional*, defaults to 50): Speech tokens of a window at the full rate.
        tokens_per_window (`int`, *optional*): Speech tokens of a window; `num_queries` by default.
        tokens_follow_length (`bool`, *optional*, defaults to `False`): As in [`HFQFormerConfig`].
        window_overlap (`float`, *optional*, defaults to 0.0): Seconds that neighbouring windows share.
        window_times (`bool`, *optional*, defaults to `False`):
            Write the time at which a window starts within its audio, for example `[00:30]`, before its placeholders.
        transcription_prompt (`str`, *optional*): What `apply_transcription_request` asks.

    Raises:
        ValueError: for a feature extractor with another window, or a tokenizer without the audio token.
    """

    valid_processor_kwargs = FastSLMProcessorKwargs  # type: ignore[assignment]

    def __init__(
        self,
        feature_extractor,
        tokenizer,
        chat_template: str | None = None,
        audio_token: str = AUDIO_TOKENS[0],
        max_source_positions: int = 1500,
        num_queries: int = 50,
        tokens_per_window: int | None = None,
        tokens_follow_length: bool = False,
        window_overlap: float = 0.0,
        window_times: bool = False,
        transcription_prompt: str = TRANSCRIPTION_PROMPT,
    ):
        frames = MEL_FRAMES_PER_ENCODER_FRAME * max_source_positions
        if feature_extractor.nb_max_frames != frames:
            raise ValueError(
                f"the feature extractor's window has {feature_extractor.nb_max_frames} frames, the encoder's {frames}"
            )
        if audio_token not in tokenizer.get_vocab():
            raise ValueError(f"the tokenizer has no token {audio_token!r}; add_speech_tokens(tokenizer) adds it")
        self.audio_token = audio_token
        self.audio_token_id = tokenizer.convert_tokens_to_ids(audio_token)
        self.max_source_positions = max_source_positions
        self.num_queries = num_queries
        self.tokens_per_window = tokens_per_window
        self.tokens_follow_length = tokens_follow_length
        self.window_overlap = window_overlap
        self.window_times = window_times
        self.transcription_prompt = transcription_prompt
        # AutoProcessor looks for remote code only here: config.json does not count if this file names a class.
        self.auto_map = {"AutoProcessor": "processing_fastslm.FastSLMProcessor"}
        super().__init__(feature_extractor, tokenizer, chat_template=chat_template)

    @classmethod
    def from_parts(
        cls,
        feature_extractor: FeatureExtractionMixin,
        tokenizer: PreTrainedTokenizerBase,
        config: PreTrainedConfig | None = None,
        **settings: Any,
    ) -> "FastSLMProcessor":
        r"""Build for any language model's tokenizer; its chat format is kept, and ChatML is used if it has none.

        Args:
            feature_extractor (`WhisperFeatureExtractor`): Of the speech encoder.
            tokenizer (`PreTrainedTokenizerBase`): Gets the tokens of `add_speech_tokens` that it lacks.
            config (`FastSLMConfig`, *optional*): Of the model; the published one by default.
            settings: Other arguments of the class.
        """
        add_speech_tokens(tokenizer)
        if config is not None:
            adapter = config.qformer_config
            settings = {
                "max_source_positions": adapter.max_source_positions,
                "num_queries": adapter.num_queries,
                "tokens_per_window": config.tokens_per_window,
                "tokens_follow_length": adapter.tokens_follow_length,
                "window_overlap": config.window_overlap,
                **settings,
            }
        settings.setdefault("chat_template", FLATTEN_TEMPLATE + (tokenizer.chat_template or CHATML_TEMPLATE))
        return cls(feature_extractor, tokenizer, **settings)

    def __call__(
        self,
        text: str | list[str] | None = None,
        audio: Any = None,
        output_labels: bool = False,
        **kwargs,
    ) -> BatchFeature:
        """Token ids with a placeholder for each speech token, and windows of log-mel features.

        Args:
            text (`str` or `list[str]`): Each `audio_token` in it stands for the next audio input of the batch.
            audio (array or list of arrays, *optional*): Mono or stereo, 16 kHz, floats or integers.
            output_labels (`bool`, *optional*, defaults to `False`):
                Add `labels`: the ids, -100 for speech and padding. `apply_chat_template` also leaves out the prompt.
            kwargs: `tokens_per_window`, `window_times`, and the usual arguments of a processor.

        Returns:
            `BatchFeature`: `input_ids`, `attention_mask` `(batch, length)`, padded on the left; with audio
            `input_features` `(windows, mel bins, frames)` and `input_features_mask` `(windows, frames)`.

        Raises:
            ValueError: if audios and placeholders differ in number (with both), or for audio that is empty, not
                finite, not at 16 kHz, or not audio at all.
        """
        self._check_counts(text, audio)
        # transformers' own signature begins with images.
        inputs = super().__call__(text=text, audio=audio, **kwargs)
        rate = kwargs.get("tokens_per_window") or (kwargs.get("audio_kwargs") or {}).get("tokens_per_window")
        if rate is not None and rate != self._rate(None):
            inputs["tokens_per_window"] = torch.tensor(rate)
        if output_labels:
            ignored = (inputs["input_ids"] == self.audio_token_id) | (inputs["attention_mask"] == 0)
            inputs["labels"] = inputs["input_ids"].masked_fill(ignored, -100)
        return inputs

    def apply_chat_template(  # type: ignore[override]
        self, conversation, chat_template=None, output_labels: bool = False, **kwargs
    ):
        """As [`ProcessorMixin.apply_chat_template`].

        Args:
            conversation (`list[dict]` or a list of them): Contents are strings or lists of `text` and `audio` parts.
            output_labels (`bool`, *optional*, defaults to `False`):
                Add `labels` `(batch, length)`: the ids of the last turn, which is the assistant's, and -100 before it.

        Raises:
            ValueError: for a chat without turns, a turn without a role, a part that is neither text nor audio, a file
                that is not there; with `output_labels`, if the last turn is not an assistant's.
        """
        conversation = checked_chats(conversation)
        # The template writes every special token itself, as for a tokenizer.
        kwargs["processor_kwargs"] = {"add_special_tokens": False, **(kwargs.get("processor_kwargs") or {})}
        if not output_labels:
            return super().apply_chat_template(conversation, chat_template, **kwargs)
        kwargs.update(tokenize=True, return_dict=True)
        inputs: Any = super().apply_chat_template(conversation, chat_template, **kwargs)
        batched = isinstance(conversation[0], (list, tuple))
        labels = torch.full_like(inputs["input_ids"], -100)
        for row, turns in enumerate(conversation if batched else [conversation]):
            answer = self._answer_of(turns, chat_template)
            whole = self.tokenizer(answer, add_special_tokens=False).input_ids
            end = int(inputs["attention_mask"][row].nonzero()[-1]) + 1
            start = end - len(whole)
            if inputs["input_ids"][row, start:end].tolist() != whole:
                raise ValueError("no labels: the answer does not begin with a token of its own in this chat template")
            learned = start + len(self.tokenizer(answer.rstrip(), add_special_tokens=False).input_ids)
            labels[row, start:learned] = inputs["input_ids"][row, start:learned]
        inputs["labels"] = labels
        return inputs

    def apply_transcription_request(
        self,
        audio: Any,
        language: str | list[str | None] | None = None,
        prompt: str | list[str | None] | None = None,
        tokenize: bool = True,
        window_times: bool | None = None,
        **kwargs,
    ) -> BatchFeature | list[str]:
        r"""Inputs of `generate` for the transcripts of audios.

        The prompt is the published one: `<|ASR|>`, the audio, a line break and `transcription_prompt`. How the
        published model names a language is not known. Here the language's token, such as `<|EN|>`, follows `<|ASR|>`;
        a language without a token is named in words.

        Args:
            audio (`str`, array, or a list of them): Paths, URLs or samples; each gets a prompt.
            language (`str` or `list[str]`, *optional*): A code such as `"en"`, or a name; one for all, or one each.
            prompt (`str` or `list[str]`, *optional*): Replaces `transcription_prompt`; one for all, or one each.
            tokenize (`bool`, *optional*, defaults to `True`): Return token ids and features, not text.
            window_times (`bool`, *optional*): Overrides the processor's setting; text alone has no times yet.
            kwargs: Further arguments of `apply_chat_template`.

        Raises:
            ValueError: for no audio, or for lists that are not as long as the list of audio.
        """
        audios = list(make_list_of_audio_chat_template(audio))
        if not audios:
            raise ValueError("there is nothing to transcribe: give at least one audio input")
        languages, prompts = _for_each(language, len(audios), "language"), _for_each(prompt, len(audios), "prompt")
        conversations = []
        for item, spoken, wanted in zip(audios, languages, prompts, strict=True):
            token, wording = self._language_wording(spoken, wanted or self.transcription_prompt)
            content = [
                {"type": "text", "text": f"{TASK_TOKENS[0]}{token}"},
                make_audio_chat_template_content(item),
                {"type": "text", "text": f"\n{wording}"},
            ]
            conversations.append([{"role": "user", "content": content}])
        kwargs.setdefault("add_generation_prompt", True)
        if window_times is not None:
            kwargs["processor_kwargs"] = {**(kwargs.get("processor_kwargs") or {}), "window_times": window_times}
        return self.apply_chat_template(conversations, tokenize=tokenize, return_dict=tokenize, **kwargs)

    def num_windows(self, num_samples: int) -> int:
        """Number of windows in audio of `num_samples` at 16 kHz."""
        step, whole = self.step_samples, self.feature_extractor.n_samples
        return 1 + max(0, math.ceil((num_samples - whole) / step))

    def window_token_counts(self, num_samples: int, tokens_per_window: int | None = None) -> list[int]:
        """Speech tokens of each window of audio of `num_samples` at 16 kHz."""
        windows, rate = self.num_windows(num_samples), self._rate(tokens_per_window)
        last = num_samples - (windows - 1) * self.step_samples
        return [rate] * (windows - 1) + [self._window_tokens(last, rate)]

    def num_audio_tokens(self, num_samples: int, tokens_per_window: int | None = None) -> int:
        """Speech tokens of audio of `num_samples` at 16 kHz."""
        return sum(self.window_token_counts(num_samples, tokens_per_window))

    def audio_text(self, window_token_counts: Sequence[int], window_times: bool | None = None) -> str:
        """The text that stands for audio: a placeholder for each speech token, with windows' start times if wanted.

        Args:
            window_token_counts (`list[int]`): Speech tokens of each window.
            window_times (`bool`, *optional*): Overrides the processor's setting.
        """
        if not (self.window_times if window_times is None else window_times):
            return self.audio_token * sum(window_token_counts)
        step = self.step_samples / self.feature_extractor.sampling_rate
        return "".join(clock(i * step) + self.audio_token * count for i, count in enumerate(window_token_counts))

    def cut_windows(self, samples: np.ndarray) -> list[np.ndarray]:
        """Cut audio `(samples,)` into windows; the last one is not padded."""
        step, whole = self.step_samples, self.feature_extractor.n_samples
        return [samples[i * step : i * step + whole] for i in range(self.num_windows(len(samples)))]

    def window_features(self, windows: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-mel features `(windows, mel bins, frames)` and their mask `(windows, frames)`, 1 on audio."""
        extractor = self.feature_extractor
        shape = (len(windows), extractor.feature_size, extractor.nb_max_frames)
        features, mask = torch.empty(shape), torch.zeros(shape[0], shape[2], dtype=torch.long)
        for start in range(0, len(windows), FEATURE_WINDOWS_AT_ONCE):
            block = slice(start, min(start + FEATURE_WINDOWS_AT_ONCE, len(windows)))
            extracted = extractor(windows[block], sampling_rate=extractor.sampling_rate, return_tensors="pt")
            features[block] = extracted.input_features
        for row, window in enumerate(windows):
            mask[row, : math.ceil(len(window) / extractor.hop_length)] = 1
        return features, mask

    def _check_counts(self, text: str | list[str] | None, audio: Any) -> None:
        named = next(
            (one for one in (audio if isinstance(audio, (list, tuple)) else [audio]) if isinstance(one, str)), None
        )
        if named is not None:
            raise ValueError(
                f"the audio of a call is samples, not the file {named!r}: apply_chat_template and "
                "apply_transcription_request read files"
            )
        if text is not None and not text and not isinstance(text, str):
            raise ValueError("there is no text: give a text or several")
        wanted = sum(one.count(self.audio_token) for one in ([text] if isinstance(text, str) else text or []))
        given = 0 if audio is None else len(make_list_of_audio(audio))
        if wanted != given:
            raise ValueError(
                f"audio and placeholders do not match: the text has {wanted} {self.audio_token}, but {given} audio "
                "inputs were given"
            )

    def _process_audio(self, audio: Any, **kwargs) -> tuple[dict, list[str]]:
        rate = self._rate(kwargs.get("tokens_per_window"))
        given = kwargs.get("sampling_rate")
        if given != self.feature_extractor.sampling_rate:
            raise ValueError(
                f"the audio is at {given} Hz, but the model takes {self.feature_extractor.sampling_rate} Hz: resample "
                "it, or pass the path of the file"
            )
        clips = [mono_samples(clip) for clip in audio]
        if not all(map(len, clips)):
            raise ValueError("the audio is empty: it has no samples")
        features, mask = self.window_features([window for clip in clips for window in self.cut_windows(clip)])
        counts = [self.window_token_counts(len(clip), rate) for clip in clips]
        texts = [self.audio_text(windows, kwargs.get("window_times")) for windows in counts]
        return {"input_features": features, "input_features_mask": mask}, texts

    def _rate(self, tokens_per_window: int | None) -> int:
        return tokens_per_window or self.tokens_per_window or self.num_queries

    @property
    def step_samples(self) -> int:
        """Samples from the start of one window to the next."""
        overlap = round(self.window_overlap * self.feature_extractor.sampling_rate)
        return self.feature_extractor.n_samples - overlap

    def _window_tokens(self, num_samples: int, rate: int) -> int:
        mel_frames = math.ceil(num_samples / self.feature_extractor.hop_length)
        frames = math.ceil(mel_frames / MEL_FRAMES_PER_ENCODER_FRAME)
        positions = self.max_source_positions
        return tokens_in_window(frames, positions, self.num_queries, rate, self.tokens_follow_length)

    def _answer_of(self, turns: list[dict], chat_template: str | None) -> str:
        """What the chat template writes after the generation prompt for the last turn."""
        if turns[-1]["role"] != "assistant":
            raise ValueError(f"labels need an answer: the last turn's role is {turns[-1]['role']!r}, not 'assistant'")
        whole = super().apply_chat_template(turns, chat_template)
        prompt = super().apply_chat_template(turns[:-1], chat_template, add_generation_prompt=True)
        if not whole.startswith(prompt):
            raise ValueError("no labels: this chat template writes earlier turns differently once an answer follows")
        return whole.removeprefix(prompt)

    def _language_wording(self, language: str | None, prompt: str) -> tuple[str, str]:
        """The language's token, and the prompt, which names the language if it has no token."""
        if language is None:
            return "", prompt
        token = f"<|{language.upper()}|>"
        if token in self.tokenizer.get_vocab():
            return token, prompt
        return "", f"{prompt} Language: {language}."

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "input_features", "input_features_mask"]


def _for_each(value: Any, count: int, name: str) -> list:
    if value is None or isinstance(value, str):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"there are {count} audio inputs, but {len(value)} values of {name}")
    return list(value)


__all__ = ["FastSLMProcessor"]

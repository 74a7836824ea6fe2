"""`fastwhisper.ask` and `fastwhisper.transcribe_with_fastslm`: what a FastSLM says of a recording of any length."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from transformers import AutoConfig, BatchEncoding

from ..configuration.configuration_fastslm import FastSLMConfig
from ..data.audio import (
    AudioSource,
    EmptyAudioError,
    Samples,
    audio_duration,
    audio_path,
    audio_source,
    describe_audio,
    resampled_blocks,
)
from ..errors import InputError, check_positive
from ..model_folders import admit_language_model, check_model_folder, load_weights, loading
from ..modeling.answer_budget import AudioTooLongError, check_fits, context_tokens
from ..modeling.modeling_fastslm import FastSLMForCausalLM
from ..modeling.outputs_fastslm import FastSLMAudioOutput
from ..modeling.processing_fastslm import FastSLMProcessor
from ..modeling.prompt_audio import PromptAudio
from ..modeling.waveforms import SAMPLING_RATE
from .checkpoints import DTYPES, check_device
from .whisper_checks import check_extractor, check_switches

FastSLM: TypeAlias = tuple[FastSLMForCausalLM, FastSLMProcessor]
LONG_FORMS = ("stitch",)


@dataclass(frozen=True)
class Answer:
    """The answer of a FastSLM.

    Args:
        text (`str`): without surrounding space.
        finish_reason (`str`): `stop` where it ended by itself, `length` where it was cut, `loop` where it was stopped
            because it repeated itself.
    """

    text: str
    finish_reason: str


@dataclass(frozen=True)
class AnswerOptions:
    """How a recording is heard and answered.

    Args:
        tokens_per_window (`int`, *optional*): One of the model's rates; its own setting by default.
        max_new_tokens (`int`, *optional*): Longest answer; by the duration of the audio by default.
        long_form (`str`, *optional*): `stitch` answers span by span where the audio does not fit the context.
        span_windows (`int`, *optional*): Windows of a span with `long_form`; as many as the context allows by default.
        window_times (`bool`, *optional*): Write each window's start, such as `[00:30]`, into the prompt; as the
            processor was saved by default.
    """

    tokens_per_window: int | None = None
    max_new_tokens: int | None = None
    long_form: str | None = None
    span_windows: int | None = None
    window_times: bool | None = None

    def check(self, model: FastSLMForCausalLM) -> None:
        """Check that a model can do what is asked for.

        Raises:
            InputError: if it cannot.
        """
        numbers = {"max_new_tokens": self.max_new_tokens, "span_windows": self.span_windows}
        check_positive(**{name: number for name, number in numbers.items() if number is not None})
        if self.long_form not in (None, *LONG_FORMS):
            raise InputError(f"long_form={self.long_form!r} is unknown; it must be {' or '.join(LONG_FORMS)}")
        if self.span_windows is not None and self.long_form is None:
            raise InputError("span_windows needs long_form='stitch'")
        try:
            model.config.qformer_config.check_rate(self.tokens_per_window)
        except ValueError as error:
            raise InputError(str(error)) from error


def ask(
    audio: AudioSource | Samples | tuple[Samples, int],
    question: str = "What is said?",
    *,
    model: str | os.PathLike | FastSLM,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> Answer:
    r"""Ask a FastSLM about a recording.

    The audio is read and encoded block by block: memory grows with its length by the speech tokens alone.

    ```python
    answer = fastwhisper.ask("lecture.flac", "What was decided?", model="slm")
    print(answer.text, answer.finish_reason)
    ```

    Args:
        audio (`AudioSource`, `np.ndarray` or `torch.Tensor`):
            Anything that [`load_audio`] reads, such as a path; samples alone, which are taken to be at 16 kHz; or
            samples and their sampling rate.
        question (`str`, *optional*, defaults to `"What is said?"`): What to ask.
        model (`str`, `os.PathLike` or `tuple[FastSLMForCausalLM, FastSLMProcessor]`):
            Name on the Hub or folder; for several questions the pair that [`load_fastslm`] returns, so that it is
            loaded once.
        device, dtype, trust_remote_code (*optional*):
            As for [`load_fastslm`], where `model` is a name or folder.
        options: Fields of [`AnswerOptions`].

    Raises:
        InputError: for audio, a model or an option that cannot be used, or for audio beyond the model's context
            without `long_form`.
    """
    pair = load_fastslm_pair(model, device, dtype, trust_remote_code)
    return answer(pair, audio, question_prompt(pair[1], question), AnswerOptions(**options))


def transcribe_with_fastslm(
    audio: AudioSource | Samples | tuple[Samples, int],
    *,
    model: str | os.PathLike | FastSLM,
    language: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> Answer:
    r"""Transcribe a recording with a FastSLM; `long_form="stitch"` for one beyond its context.

    Args:
        audio, model, device, dtype, trust_remote_code, options: As for [`ask`].
        language (`str`, *optional*): Code or name of the language.

    Raises:
        InputError: As [`ask`].
    """
    pair = load_fastslm_pair(model, device, dtype, trust_remote_code)
    return answer(pair, audio, transcription_prompt(pair[1], language), AnswerOptions(**options))


def load_fastslm(
    name: str | os.PathLike,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> FastSLM:
    """Load a FastSLM and its processor for inference.

    Args:
        name (`str` or `os.PathLike`): Name on the Hub or folder.
        device (`str`, *optional*): Such as `cpu` or `cuda:0`; CUDA where there is one.
        dtype (`str`, *optional*): `float32`, `float16` or `bfloat16`; as saved by default.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run the code that the folder holds for its
            language model and tokenizer; otherwise a warning says that it is not run.

    Raises:
        InputError: if there is no such FastSLM, if its language model needs code without `trust_remote_code`, for an
            unknown device or dtype.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"there is no dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    code = check_model_folder(name, trust_remote_code)
    admit_language_model(name, code)
    with loading(name, "config.json"):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    if not isinstance(config, FastSLMConfig):
        raise InputError(f"{name} is not a FastSLM: its model_type is {config.model_type!r}")
    with loading(name, "the processor"):
        processor = FastSLMProcessor.from_pretrained(name, trust_remote_code="AutoTokenizer" in code)
    model = load_weights(
        FastSLMForCausalLM.from_pretrained,
        name,
        dtype="auto" if dtype is None else DTYPES[dtype],
        device_map=device,
    )
    _check_fit(model, processor, name)
    return model.eval(), processor


def _check_fit(model: FastSLMForCausalLM, processor: FastSLMProcessor, name: str | os.PathLike) -> None:
    """Check that a processor cuts and counts as the model does, and that their ids are the same.

    Raises:
        InputError: names what differs, and both values.
    """
    config, adapter = model.config, model.config.qformer_config
    check_extractor(processor.feature_extractor, config.audio_config, str(name))
    check_switches(model.generation_config, str(name))
    own = {
        "max_source_positions": (processor.max_source_positions, adapter.max_source_positions),
        "num_queries": (processor.num_queries, adapter.num_queries),
        "tokens_follow_length": (processor.tokens_follow_length, adapter.tokens_follow_length),
        "tokens_per_window": (processor.tokens_per_window, config.tokens_per_window),
        "window_overlap": (processor.window_overlap, config.window_overlap),
        "audio_token_id": (processor.audio_token_id, config.audio_token_id),
    }
    for field, (theirs, ours) in own.items():
        if theirs != ours:
            raise InputError(f"the processor of {name} has {field} {theirs}, and config.json has {ours}")
    largest, rows = max(processor.tokenizer.get_vocab().values()), config.text_config.vocab_size
    if largest >= rows:
        raise InputError(f"the tokenizer of {name} has ids up to {largest}, and the model's vocab_size is {rows}")
    ends: Any = model.generation_config.eos_token_id
    for token in ends if isinstance(ends, list) else [ends]:
        if token is not None and not (isinstance(token, int) and 0 <= token < rows):
            raise InputError(f"generation_config.json of {name} has eos_token_id {token!r:.40}, beyond {rows} ids")


def load_fastslm_pair(
    model: str | os.PathLike | FastSLM,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> FastSLM:
    """A FastSLM and its processor, loaded unless they are given.

    Raises:
        InputError: as [`load_fastslm`], or for a device or dtype with a loaded model.
    """
    if isinstance(model, str | os.PathLike):
        return load_fastslm(model, device, dtype, trust_remote_code)
    if device is not None or dtype is not None:
        raise InputError("device and dtype only apply to a model given by name; a loaded model has its own")
    return model


def question_prompt(processor: FastSLMProcessor, question: str) -> str:
    """The text of a chat that asks about one audio, whose placeholder is in it."""
    content = [{"type": "audio"}, {"type": "text", "text": f"\n{question}"}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


def transcription_prompt(processor: FastSLMProcessor, language: str | None) -> str:
    """The text that asks for the transcript of one audio, whose placeholder is in it."""
    (prompt,) = processor.apply_transcription_request(np.zeros(1, np.float32), language, tokenize=False)
    return prompt


def answer(
    pair: FastSLM,
    audio: AudioSource | Samples | tuple[Samples, int],
    prompt: str,
    options: AnswerOptions,
    heard_progress: Callable[[int], Any] = lambda windows: None,
    answered_progress: Callable[[int, int], Any] | None = None,
) -> Answer:
    """Hear a recording, and answer a prompt with one placeholder for it.

    Args:
        pair (`tuple[FastSLMForCausalLM, FastSLMProcessor]`): The model and its processor.
        audio (`AudioSource`, `np.ndarray` or `torch.Tensor`): As for [`ask`].
        prompt (`str`): Such as of [`question_prompt`].
        options (`AnswerOptions`): How.
        heard_progress (`Callable`, *optional*): Called after each block of windows with their number.
        answered_progress (`Callable`, *optional*):
            Called after each span of `long_form` with the windows answered so far, and all.

    Raises:
        InputError: As [`ask`].
    """
    model, processor = pair
    audio = audio_source(audio)
    options.check(model)
    if prompt.count(processor.audio_token) != 1:
        raise InputError(f"{processor.audio_token} stands for the audio: a question must not contain it")
    _check_fits(pair, audio, prompt, options)
    windows = audio_windows(audio, processor.feature_extractor.n_samples, processor.step_samples)
    heard = hear(model, processor, windows, options.tokens_per_window, heard_progress)
    counts = heard.window_token_counts.tolist()  # type: ignore[union-attr]
    if not counts:
        raise EmptyAudioError(f"{describe_audio(audio)} is empty: it has no samples")
    inputs = _prompt_inputs(processor, prompt, counts, options).to(model.device)
    try:
        outputs = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            audio_features=heard.pooler_output,
            window_token_counts=counts,
            tokens_per_window=options.tokens_per_window,
            long_form=options.long_form,
            span_windows=options.span_windows,
            span_progress=answered_progress,
            return_dict_in_generate=True,
            tokenizer=processor.tokenizer,
            max_new_tokens=options.max_new_tokens,
        )
    except AudioTooLongError as error:
        raise InputError(f"{describe_audio(audio)}: {error}") from error
    said = outputs.sequences[0, inputs["input_ids"].shape[1] :]
    return Answer(processor.tokenizer.decode(said, skip_special_tokens=True).strip(), outputs.finish_reasons[0])


def _prompt_inputs(
    processor: FastSLMProcessor, prompt: str, counts: list[int], options: AnswerOptions
) -> BatchEncoding:
    text = prompt.replace(processor.audio_token, processor.audio_text(counts, options.window_times))
    return processor.tokenizer(text, add_special_tokens=False, return_tensors="pt")


def _check_fits(pair: FastSLM, audio: AudioSource, prompt: str, options: AnswerOptions) -> None:
    """Check by the header, before anything is encoded, that the audio fits the context; streams come once, unread.

    Raises:
        InputError: if it does not.
    """
    model, processor = pair
    context = context_tokens(model.config)
    if options.long_form is not None or context is None or not _has_header(audio):
        return
    samples = math.ceil(audio_duration(audio) * SAMPLING_RATE)
    if samples == 0:
        return
    if processor.num_windows(samples) > context:
        hours = samples / SAMPLING_RATE / 3600
        raise InputError(
            f"{describe_audio(audio)}: the audio does not fit the language model: it is {hours:.1f} hours long, more "
            f"windows than the {context} tokens that are available. Give less audio, or long_form='stitch'"
        )
    counts = processor.window_token_counts(samples, options.tokens_per_window)
    ids = _prompt_inputs(processor, prompt, counts, options)["input_ids"]
    heard = PromptAudio(torch.empty(0), counts, [])
    try:
        check_fits(model.config, ids, None, [heard], options.max_new_tokens or 1)
    except AudioTooLongError as error:
        raise InputError(f"{describe_audio(audio)}: {error}") from error


def _has_header(audio: AudioSource) -> bool:
    if isinstance(audio, bytes | bytearray | memoryview | Mapping):
        return True
    return audio_path(audio) is not None


def hear(
    model: FastSLMForCausalLM,
    processor: FastSLMProcessor,
    windows: Iterable[np.ndarray],
    tokens_per_window: int | None = None,
    progress: Callable[[int], Any] = lambda windows: None,
) -> FastSLMAudioOutput:
    """Speech tokens of windows, encoded as they come: memory does not grow with their number but for the tokens.

    Args:
        model, processor: Of one FastSLM.
        windows (`Iterable[np.ndarray]`): Samples `(samples,)` at 16 kHz, as of [`audio_windows`].
        tokens_per_window (`int`, *optional*): One of the model's rates.
        progress (`Callable`, *optional*): Called after each block with its number of windows.
    """
    tokens: list[torch.Tensor] = []
    counts: list[torch.Tensor] = []
    block: list[np.ndarray] = []

    def encode() -> None:
        features, mask = processor.window_features(block)
        with torch.inference_mode():
            encoded = model.get_audio_features(features, mask, tokens_per_window=tokens_per_window)
        tokens.append(encoded.pooler_output)
        counts.append(encoded.window_token_counts)
        progress(len(block))
        block.clear()

    for window in windows:
        block.append(window)
        if len(block) == model.config.encoder_window_batch:
            encode()
    if block:
        encode()
    if not tokens:
        return FastSLMAudioOutput(torch.empty(0, 0), window_token_counts=torch.empty(0, dtype=torch.long))
    # Outside of inference mode, so that `generate` may use them.
    return FastSLMAudioOutput(pooler_output=torch.cat(tokens).clone(), window_token_counts=torch.cat(counts))


def audio_windows(audio: AudioSource | Samples | tuple[Samples, int], whole: int, step: int) -> Iterator[np.ndarray]:
    """Windows of at most `whole` samples at 16 kHz, one each `step` samples; files are read as they are needed.

    Raises:
        InputError: for audio that cannot be read, or has samples that are NaN, infinite or no audio.
    """
    waiting = np.zeros(0, np.float32)
    for samples in resampled_blocks(audio_source(audio)):
        waiting = np.concatenate([waiting, samples])
        while len(waiting) > whole:
            yield waiting[:whole]
            waiting = waiting[step:]
    if len(waiting):
        yield waiting

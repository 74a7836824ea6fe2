"""`fastwhisper slm`: build a FastSLM, ask it about a recording, let it transcribe."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from .arguments import run_parsed

if TYPE_CHECKING:
    import numpy as np
    from rich.progress import Progress, TaskID

    from ..modeling.modeling_fastslm import FastSLMForCausalLM
    from ..modeling.outputs_fastslm import FastSLMAudioOutput
    from ..modeling.processing_fastslm import FastSLMProcessor

ACTIONS = {
    "init": "build an untrained FastSLM from a Whisper encoder and a causal language model",
    "ask": "answer a question about a recording",
    "transcribe": "write the text of recordings of any length",
}
FILES = ("files", "audio files; put them before the flags")
READ_SECONDS = 10


@dataclass
class InitArguments:
    """From which parts."""

    encoder: str = field(metadata={"help": "name or folder of a Whisper or FastWhisper"})
    language_model: str = field(metadata={"help": "name or folder of a causal language model with its tokenizer"})
    output: str = field(metadata={"help": "new folder for the model"})
    num_queries: int = field(default=50, metadata={"help": "speech tokens per window"})
    stage_queries: list[int] = field(
        default_factory=lambda: [80, 80, 80], metadata={"help": "queries per time scale (default: 80 80 80)"}
    )
    rates: list[int] | None = field(default=None, metadata={"help": "tokens per window that may be chosen later"})
    query_clock: str = field(default="index", metadata={"help": "index (as published) or aligned"})
    tokens_follow_length: bool = field(default=False, metadata={"help": "tokens in proportion to the audio's length"})
    mask_padding: bool = field(default=False, metadata={"help": "leave padding out of every attention"})
    window_overlap: float = field(default=0.0, metadata={"help": "seconds that neighbouring windows share"})
    window_times: bool = field(default=False, metadata={"help": "write each window's start into the prompt"})
    encoder_true_length: bool = field(
        default=False, metadata={"help": "give the encoder audio without padding; for encoders trained so"}
    )
    seed: int = field(default=0, metadata={"help": "of the fresh adapter"})


@dataclass
class HearArguments:
    """With which model, and how."""

    model: str = field(metadata={"help": "name or folder of a FastSLM"})
    tokens_per_window: int | None = field(default=None, metadata={"help": "one of the model's rates"})
    max_new_tokens: int | None = field(default=None, metadata={"help": "longest answer; by the duration otherwise"})
    long_form: str | None = field(
        default=None, metadata={"help": "stitch: answer span by span where the context is too short"}
    )
    window_times: bool = field(
        default=False,
        metadata={"help": "write each window's start, such as [00:30], into the prompt; as saved otherwise"},
    )
    span_windows: int | None = field(
        default=None, metadata={"help": "windows of a span with --long_form; as many as the context allows otherwise"}
    )
    device: str | None = field(default=None, metadata={"help": "cpu or cuda; CUDA where there is one"})
    dtype: str | None = field(default=None, metadata={"help": "float32, float16 or bfloat16; as saved otherwise"})


@dataclass
class AskArguments(HearArguments):
    """The question, too."""

    question: str = field(default="What is said?", metadata={"help": "question about the recording"})


@dataclass
class TranscribeArguments(HearArguments):
    """The language and the place of the text, too."""

    language: str | None = field(default=None, metadata={"help": "code or name of the language"})
    output: str | None = field(default=None, metadata={"help": "folder for FILE.txt; standard output otherwise"})


def init(arguments: InitArguments) -> None:
    """Build a model and its processor and write them, their code and their card into a new folder.

    Raises:
        InputError: where the output exists.
        ValueError: for parts that do not fit each other.
    """
    from pathlib import Path

    import torch
    from transformers import AutoFeatureExtractor, AutoTokenizer

    from ..errors import InputError
    from ..hub_cards.card import write_card
    from ..hub_cards.export import export_folder
    from ..modeling.modeling_fastslm import FastSLMForCausalLM
    from ..modeling.processing_fastslm import FastSLMProcessor
    from ..modeling.speech_windows import load_speech_encoder

    if Path(arguments.output).exists():
        raise InputError(f"{arguments.output} exists already")
    encoder = load_speech_encoder(arguments.encoder)
    extractor = AutoFeatureExtractor.from_pretrained(arguments.encoder)
    tokenizer = AutoTokenizer.from_pretrained(arguments.language_model)
    FastSLMProcessor.from_parts(extractor, tokenizer, max_source_positions=encoder.config.max_source_positions)
    torch.manual_seed(arguments.seed)
    model = FastSLMForCausalLM.from_parts(
        encoder,
        arguments.language_model,
        {
            "hidden_size": encoder.config.d_model,
            "num_attention_heads": encoder.config.encoder_attention_heads,
            "max_source_positions": encoder.config.max_source_positions,
            **{name: getattr(arguments, name) for name in ("num_queries", "stage_queries", "rates", "query_clock")},
            "tokens_follow_length": arguments.tokens_follow_length,
            "mask_padding": arguments.mask_padding,
        },
        tokenizer=tokenizer,
        window_overlap=arguments.window_overlap,
        encoder_true_length=arguments.encoder_true_length,
    )
    settings = {"window_times": arguments.window_times}
    export_folder(model, FastSLMProcessor.from_parts(extractor, tokenizer, model.config, **settings), arguments.output)
    write_card(arguments.output)
    rate = model.config.qformer_config.num_queries / (model.config.window_seconds - model.config.window_overlap)
    sizes = {name: _millions(part) for name, part in model.model.named_children()}
    print(f"wrote {arguments.output}: {rate:.2f} speech tokens a second; " + ", ".join(map(" ".join, sizes.items())))


def ask(files: Sequence[str], arguments: AskArguments) -> None:
    """Print the answer to a question about each file."""
    content = [{"type": "audio"}, {"type": "text", "text": f"\n{arguments.question}"}]

    def prompt(processor: "FastSLMProcessor", path: str) -> str:
        chat = [{"role": "user", "content": content}]
        return processor.apply_chat_template(chat, add_generation_prompt=True)

    for path, text in answers(files, arguments, prompt):
        print(f"{path}: {text}" if len(files) > 1 else text)


def transcribe(files: Sequence[str], arguments: TranscribeArguments) -> None:
    """Print the transcript of each file, or write it into `arguments.output`."""
    from pathlib import Path

    def prompt(processor: "FastSLMProcessor", path: str) -> str:
        texts: Any = processor.apply_transcription_request(path, arguments.language, tokenize=False)
        return texts[0]

    if arguments.output is not None:
        Path(arguments.output).mkdir(parents=True, exist_ok=True)
    for path, text in answers(files, arguments, prompt):
        if arguments.output is not None:
            (Path(arguments.output) / f"{Path(path).stem}.txt").write_text(f"{text}\n", encoding="utf-8")
        else:
            print(f"{path}: {text}" if len(files) > 1 else text, flush=True)


def answers(
    files: Sequence[str], arguments: HearArguments, prompt: Callable[["FastSLMProcessor", str], str]
) -> Iterator[tuple[str, str]]:
    """Path and answer of each file; files are read, and their windows encoded, block by block.

    Raises:
        InputError: for no file, a file that cannot be read, and a model that is no FastSLM.
        ValueError: for audio beyond the language model's context without `long_form`.
    """
    from ..errors import InputError
    from ..progress import progress_bar, quiet_transformers

    if not files:
        raise InputError("give at least one audio file")
    quiet_transformers()
    totals = {path: _frames_at_16_khz(path) for path in files}
    model, processor = _load(arguments)
    for path, samples in totals.items():
        windows = processor.num_windows(samples)
        with progress_bar() as bar:
            task = bar.add_task(f"{path}: {windows} windows", total=windows)
            heard = hear(model, processor, path, arguments.tokens_per_window, partial(bar.advance, task))
            answered = None
            if arguments.long_form is not None:
                answered = partial(_show_answered, bar, bar.add_task("answered", total=windows))
            text = _answer(model, processor, prompt(processor, path), heard, path, arguments, answered)
        yield path, text


def hear(
    model: "FastSLMForCausalLM",
    processor: "FastSLMProcessor",
    path: str,
    tokens_per_window: int | None = None,
    progress: Callable[[int], Any] = lambda windows: None,
) -> "FastSLMAudioOutput":
    """Speech tokens of a file, in memory that does not grow with its length but for the tokens."""
    import torch

    from ..modeling.outputs_fastslm import FastSLMAudioOutput

    size = model.config.encoder_window_batch
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

    for window in read_windows(path, processor.feature_extractor.n_samples, processor.step_samples):
        block.append(window)
        if len(block) == size:
            encode()
    if block:
        encode()
    return FastSLMAudioOutput(pooler_output=torch.cat(tokens).clone(), window_token_counts=torch.cat(counts))


def read_windows(path: str, whole: int, step: int) -> "Iterator[np.ndarray]":
    """Windows of `whole` samples at 16 kHz, one each `step` samples, read from a file as they are needed.

    Raises:
        InputError: for a file that cannot be read, is empty, or has samples that are NaN or infinite.
    """
    import numpy as np
    import soundfile
    import soxr

    from ..errors import InputError
    from ..modeling.processing_fastslm import mono_samples

    try:
        with soundfile.SoundFile(path) as file:
            resampler = soxr.ResampleStream(file.samplerate, 16_000, 1, dtype="float32")
            waiting = np.zeros(0, np.float32)
            while True:
                read = file.read(READ_SECONDS * file.samplerate, dtype="float32", always_2d=True)
                last = len(read) == 0
                samples = read[:, 0] if last else mono_samples(read.mean(axis=1))
                waiting = np.concatenate([waiting, resampler.resample_chunk(samples, last=last)])
                while len(waiting) > whole:
                    yield waiting[:whole]
                    waiting = waiting[step:]
                if last:
                    break
            if len(waiting):
                yield waiting
    except soundfile.SoundFileError as error:
        raise InputError(f"{path} cannot be read as audio: {error}") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _frames_at_16_khz(path: str) -> int:
    import math

    import soundfile

    from ..errors import InputError

    try:
        info = soundfile.info(path)
    except soundfile.SoundFileError as error:
        raise InputError(f"{path} cannot be read as audio: {error}") from error
    if info.frames == 0:
        raise InputError(f"{path} is empty: it has no samples")
    return math.ceil(info.frames * 16_000 / info.samplerate)


def _load(arguments: HearArguments) -> "tuple[FastSLMForCausalLM, FastSLMProcessor]":
    import torch
    from transformers import AutoConfig

    from ..errors import InputError
    from ..modeling.modeling_fastslm import FastSLMForCausalLM
    from ..modeling.processing_fastslm import FastSLMProcessor

    config = AutoConfig.from_pretrained(arguments.model)
    if config.model_type != "fastslm":
        raise InputError(f"{arguments.model} is no FastSLM: its model_type is {config.model_type!r}")
    if arguments.dtype not in (None, "float32", "float16", "bfloat16"):
        raise InputError(f"dtype {arguments.dtype!r} is unknown; it is float32, float16 or bfloat16")
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = "auto" if arguments.dtype is None else getattr(torch, arguments.dtype)
    model: Any = FastSLMForCausalLM.from_pretrained(arguments.model, dtype=dtype)
    return model.to(device), FastSLMProcessor.from_pretrained(arguments.model)


def _answer(
    model: "FastSLMForCausalLM",
    processor: "FastSLMProcessor",
    prompt: str,
    heard: "FastSLMAudioOutput",
    path: str,
    arguments: HearArguments,
    answered: Callable[[int, int], None] | None,
) -> str:
    windows = heard.window_token_counts.tolist()  # type: ignore[union-attr]
    prompt = prompt.replace(processor.audio_token, processor.audio_text(windows, arguments.window_times or None))
    inputs = processor.tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(model.device)
    settings = {
        name: value
        for name in ("tokens_per_window", "max_new_tokens", "long_form", "span_windows")
        if (value := getattr(arguments, name)) is not None
    }
    outputs = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        audio_features=heard.pooler_output,
        return_dict_in_generate=True,
        tokenizer=processor.tokenizer,
        span_progress=answered,
        **settings,
    )
    if outputs.finish_reasons[0] != "stop":
        print(f"{path}: the answer did not end by itself ({outputs.finish_reasons[0]})", file=sys.stderr)
    said = outputs.sequences[0, inputs["input_ids"].shape[1] :]
    return processor.tokenizer.decode(said, skip_special_tokens=True).strip()


def _show_answered(bar: "Progress", task: "TaskID", done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _millions(part: Any) -> str:
    return f"{sum(parameter.numel() for parameter in part.parameters()) / 1e6:.1f} M"


def usage() -> str:
    rows = "\n".join(f"  {action:<12}{help_text}" for action, help_text in ACTIONS.items())
    return f"""usage: fastwhisper slm ACTION [OPTIONS]

FastSLM: hours of speech for a causal language model.

actions:
{rows}

fastwhisper slm ACTION --help shows the options of an action.
"""


def main(argv: Sequence[str]) -> None:
    """Run an action.

    Raises:
        InputError: for no action, an unknown one, and what the actions refuse.
    """
    from ..errors import InputError

    action, rest = (argv[0], list(argv[1:])) if argv else ("--help", [])
    if action in ("-h", "--help"):
        print(usage(), end="")
        return
    program = f"fastwhisper slm {action}"
    if action == "init":
        run_parsed(program, ACTIONS[action], rest, InitArguments, init)
    elif action == "ask":
        run_parsed(program, ACTIONS[action], rest, AskArguments, ask, FILES)
    elif action == "transcribe":
        run_parsed(program, ACTIONS[action], rest, TranscribeArguments, transcribe, FILES)
    else:
        raise InputError(f"there is no action {action!r}; the actions are {', '.join(ACTIONS)}")

"""`fastwhisper.label`: add a teacher's transcription to each row of a dataset."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from ..data.loading import DatasetSource, load_speech_dataset
from ..data.row_store import RowStore
from ..errors import InputError, check_positive
from ..transcription.checkpoints import load_checkpoint
from ..transcription.decoding import GenerationOptions
from .label_states import StatesSettings, keep_states
from .pseudo_labels import LabelReport, LabelSettings, label_dataset, this_process


def label(
    model: str | os.PathLike,
    dataset: DatasetSource,
    output: str | os.PathLike,
    *,
    dataset_config: str | None = None,
    split: str | None = None,
    audio_column: str = "audio",
    text_column: str = "text",
    limit: int | None = None,
    streaming: bool = False,
    language: str | None = None,
    task: str = "transcribe",
    timestamps: bool = True,
    wer_filter: float | None = None,
    batch_size: int = 16,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    on_bad_audio: str = "skip",
    num_proc: int | None = None,
    teacher_cache: str | os.PathLike | None = None,
    cache_dtype: str = "float16",
    timestamp_probability: float = 0.2,
    prompt_probability: float = 0.2,
    seed: int = 42,
) -> LabelReport | None:
    r"""Transcribe a dataset with a teacher, as training data for its student.

    A killed run resumes where it stopped when run again. Several processes share the batches among them.

    Args:
        model (`str` or `os.PathLike`): The teacher: name on the Hub or folder.
        dataset (`DatasetSource`): Name on the Hub, folder, or dataset, as for [`load_speech_dataset`].
        output (`str` or `os.PathLike`): New folder for `metadata.jsonl`, or that of a run to resume.
        dataset_config, split, audio_column, text_column, limit, streaming (*optional*):
            As for [`load_speech_dataset`]; only `wer_filter` needs text.
        language (`str`, *optional*): Code or English name; by default the model's own, or detected per row.
        task (`str`, *optional*, defaults to `"transcribe"`): `transcribe` or `translate`.
        timestamps (`bool`, *optional*, defaults to `True`): Also write `timestamped_text`; slower.
        wer_filter (`float`, *optional*): Leave out rows whose label and reference differ by more than this WER.
        batch_size (`int`, *optional*, defaults to 16): Clips decoded together.
        device (`str`, *optional*): By default that of this process.
        dtype, trust_remote_code (*optional*): As for [`load_checkpoint`].
        on_bad_audio, num_proc (*optional*): As for [`label_dataset`].
        teacher_cache (`str` or `os.PathLike`, *optional*): Folder for the teacher's last decoder states on the labels,
            from which `distill` then learns without running the teacher, except for the encoder states of an
            `encoder_weight`.
        cache_dtype, timestamp_probability, prompt_probability, seed (*optional*): Those that `distill` will be given,
            whose `teacher_dtype` must be this `dtype`. Only `teacher_cache` needs them.

    Returns:
        `LabelReport`, or `None` on every process but the first.

    Raises:
        InputError: for a model, a dataset, an option or an output folder that cannot be used.
    """
    check_positive(batch_size=batch_size)
    if wer_filter is not None and not 0 <= wer_filter < float("inf"):
        raise InputError(f"wer_filter must be a number of 0 or more, not {wer_filter}")
    kept = None
    if teacher_cache is not None:
        kept = StatesSettings(teacher_cache, cache_dtype, timestamp_probability, prompt_probability, seed)
    state = this_process()
    with state.local_main_process_first():
        rows = load_speech_dataset(
            dataset,
            dataset_config=dataset_config,
            split=split,
            audio_column=audio_column,
            text_column=text_column,
            streaming=streaming,
            limit=limit,
            require_text=wer_filter is not None,
        )
        teacher, processor = load_checkpoint(model, device or str(state.device), dtype, trust_remote_code)
    options = GenerationOptions(language=language, task=task, timestamps=timestamps, batch_size=batch_size)
    source = {
        "model": _recorded(model),
        "dataset": _recorded(dataset) if isinstance(dataset, str | os.PathLike) else None,
        "dataset_config": dataset_config,
        "split": split,
        "audio_column": audio_column,
        "text_column": text_column,
        "limit": limit,
        "dtype": dtype,
        **({"trust_remote_code": True} if trust_remote_code else {}),
    }
    settings = LabelSettings(options, source)
    if teacher_cache is not None:
        RowStore(teacher_cache)  # refused now if it cannot be written in, not after hours
    report = label_dataset(teacher, processor, rows, Path(output), settings, wer_filter, on_bad_audio, num_proc)
    if kept is None:
        return report
    state.wait_for_everyone()  # for the table
    told = keep_states(teacher, model, processor, Path(output), options, kept, state, trust_remote_code)
    return replace(report, cache=told) if report is not None else None


def _recorded(name: str | os.PathLike) -> str:
    """A name or folder for the record of a run: of an absolute path, the last component and a digest."""
    path = os.fspath(name)
    if not os.path.isabs(path):
        return path
    return f"{Path(path).name} ({hashlib.sha256(os.path.normpath(path).encode()).hexdigest()[:16]})"

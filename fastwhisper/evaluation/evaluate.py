"""`fastwhisper.evaluate`: WER, CER, speed and memory of one model, or of several on the same audio."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.loading import DatasetSource, load_speech_dataset
from ..errors import check_positive, check_seed
from ..files import check_writable
from ..transcription.checkpoints import display_name, load_checkpoint
from ..transcription.decoding import GenerationOptions
from ..transcription.true_length import is_true_length
from .comparison import ComparisonSettings, compare_models


def evaluate(
    model: str | os.PathLike,
    dataset: DatasetSource,
    *,
    against: str | os.PathLike | Sequence[str | os.PathLike] = (),
    dataset_config: str | None = None,
    split: str | None = None,
    audio_column: str = "audio",
    text_column: str = "text",
    limit: int | None = None,
    streaming: bool = False,
    language: str | None = None,
    task: str = "transcribe",
    batch_size: int = 8,
    num_beams: int = 1,
    repeats: int = 1,
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    full_length: bool = False,
    predictions: str | os.PathLike | None = None,
    show_progress: bool = True,
    on_bad_audio: str = "skip",
    num_proc: int | None = None,
) -> dict[str, Any]:
    r"""Measure one or more Whispers on the same audio.

    Args:
        model (`str` or `os.PathLike`): Name on the Hub or folder.
        dataset (`DatasetSource`): Name on the Hub, folder, or dataset, as for [`load_speech_dataset`].
        against (`str`, `os.PathLike` or several, *optional*): More models, for example the teacher of the first.
        dataset_config, split, audio_column, text_column, limit, streaming (*optional*):
            As for [`load_speech_dataset`].
        language (`str`, *optional*): Code or English name; by default the model's own, or detected per row.
        task (`str`, *optional*, defaults to `"transcribe"`): `transcribe` or `translate`.
        batch_size (`int`, *optional*, defaults to 8): Clips decoded together.
        num_beams (`int`, *optional*, defaults to 1): Beams for every model; 1 is greedy.
        repeats (`int`, *optional*, defaults to 1): Timed runs of each batch by each model; the median counts.
        seed (`int`, *optional*, defaults to 0): Seed for the sampling that long audio may fall back on.
        device, dtype, trust_remote_code (*optional*): As for [`load_checkpoint`], for every model.
        full_length (`bool`, *optional*, defaults to `False`): Give students at true length windows of 30 s, too.
        predictions (`str` or `os.PathLike`, *optional*): JSON Lines file for the reference and hypotheses of each
            row.
        show_progress (`bool`, *optional*, defaults to `True`): Show a progress bar on standard error.
        on_bad_audio, num_proc (*optional*): As for [`ComparisonSettings`].

    Returns:
        `dict`: the report, ready for JSON; rates are fractions, times seconds, sizes bytes. `write_report` saves it,
        `comparison_table` shows it.

    Raises:
        InputError: for a model, a dataset or an option that cannot be used.
    """
    check_positive(
        batch_size=batch_size, num_beams=num_beams, repeats=repeats, num_proc=1 if num_proc is None else num_proc
    )
    check_seed(seed)
    if predictions is not None:
        check_writable(Path(predictions))
    rows = load_speech_dataset(
        dataset,
        dataset_config=dataset_config,
        split=split,
        audio_column=audio_column,
        text_column=text_column,
        streaming=streaming,
        limit=limit,
    )
    others = [against] if isinstance(against, str | os.PathLike) else against
    names = [os.fspath(name) for name in (model, *others)]
    shown = [display_name(name) for name in names]
    models = [
        (label if shown.count(label) == 1 else name, *load_checkpoint(name, device, dtype, trust_remote_code))
        for label, name in zip(shown, names, strict=True)
    ]
    if full_length:
        for _, loaded, _ in models:
            if is_true_length(loaded):
                loaded.config.true_length = False
    settings = ComparisonSettings(
        generation=GenerationOptions(
            language=language, task=task, num_beams=num_beams, batch_size=batch_size, seed=seed
        ),
        repeats=repeats,
        dataset={
            "name": display_name(os.fspath(dataset)) if isinstance(dataset, str | os.PathLike) else None,
            "config": dataset_config,
            "split": split,
        },
        folders={label: Path(name) for (label, *_), name in zip(models, names, strict=True) if Path(name).is_dir()},
        show_progress=show_progress,
        on_bad_audio=on_bad_audio,
        num_proc=num_proc,
    )
    return compare_models(models, rows, settings, None if predictions is None else Path(predictions))

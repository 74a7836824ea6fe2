"""A Whisper that CTranslate2 runs: it encodes features of any length up to the window, and decodes them.

A folder written by `fastwhisper export --to ctranslate2` holds what CTranslate2 reads, and the tokenizer, feature
extractor, generation config and settings of the model that it came from.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from transformers import GenerationConfig, WhisperForConditionalGeneration, WhisperProcessor

from ..configuration.configuration_fastwhisper import FastWhisperConfig
from ..data.timestamps import RESOLUTION
from ..errors import InputError, check_installed
from ..model_folders import check_model_folder, loading, read_json
from ..modeling.whisper_generation_config import complete_generation_config
from .whisper_checks import check_config, check_fit

# The settings of the transformers model that a folder came from: CTranslate2's own config.json has other ones.
SETTINGS_FILE = "whisper_config.json"
# As transformers samples, unless the generation config has another number.
_TOP_K = 50


@dataclass(frozen=True)
class Generated:
    """What was written.

    Args:
        tokens (`list[int]`): ids without the prompt and the end of text.
        is_ended (`bool`): whether the end of text was written, which is not so where there was no room.
        log_probability (`float`): mean over the tokens and the end.
    """

    tokens: list[int]
    is_ended: bool
    log_probability: float


class CTranslate2Whisper:
    r"""A Whisper in CTranslate2, called with tensors on the CPU wherever it runs.

    Args:
        model (`ctranslate2.models.Whisper`): loaded.
        config (`FastWhisperConfig`): of the model that it was converted from.
        generation_config (`GenerationConfig`): complete.
    """

    def __init__(self, model: Any, config: FastWhisperConfig, generation_config: GenerationConfig) -> None:
        self.model = model
        self.config = config
        self.generation_config: Any = generation_config

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """Encoder states `(batch, positions, hidden)`, float32, of log-mel features `(batch, mel bins, frames)`."""
        import ctranslate2

        encoded = self.model.encode(_storage(features), to_cpu=True)
        return torch.from_numpy(np.array(encoded.to(ctranslate2.DataType.float32)))

    def generate(
        self,
        encoded: torch.Tensor,
        prompts: Sequence[list[int]],
        num_beams: int = 1,
        temperature: float = 0.0,
        seed: int = 0,
        most_tokens: int | None = None,
    ) -> list[Generated]:
        """Decode rows of one length; with times, unless the prompts end with `<|notimestamps|>`.

        Args:
            encoded (`torch.Tensor`): `(batch, positions, hidden)`.
            prompts (`Sequence[list[int]]`): ids that each row starts with, equally many.
            num_beams (`int`, *optional*, defaults to 1): 1 is greedy.
            temperature (`float`, *optional*, defaults to 0.0): above 0 tokens are drawn, without beams.
            seed (`int`, *optional*, defaults to 0): of the draws.
            most_tokens (`int`, *optional*): most ids of a row, its prompt among them.
        """
        import ctranslate2

        config = self.generation_config
        if temperature:
            ctranslate2.set_random_seed(seed)
            sampling = {
                "sampling_topk": getattr(config, "top_k", None) or _TOP_K,
                "sampling_temperature": temperature,
            }
        else:
            sampling = {"beam_size": num_beams}
        room = self._room(len(prompts[0]))
        if most_tokens is not None:
            room = min(room, most_tokens - len(prompts[0]))
        # CTranslate2 writes half of its maximum at most, and counts all of the prompt but its last id.
        results = self.model.generate(
            _storage(encoded),
            [list(prompt) for prompt in prompts],
            max_length=max(2 * room, room + len(prompts[0]) - 1),
            return_scores=True,
            max_initial_timestamp_index=self._latest_first_time(),
            suppress_tokens=list(config.suppress_tokens or []),
            **({"beam_size": 1} | sampling),
        )
        return [_generated(result.sequences_ids[0], result.scores[0], room) for result in results]

    def silence(self, encoded: torch.Tensor, start: int) -> list[float]:
        """The probability of `<|nospeech|>` after the start of transcript, of each row."""
        # One step: CTranslate2 gives it only together with a text.
        results = self.model.generate(
            _storage(encoded), [[start]] * len(encoded), beam_size=1, max_length=2, return_no_speech_prob=True
        )
        return [result.no_speech_prob for result in results]

    def languages(self, heard: torch.Tensor) -> list[str]:
        """Codes of the languages that are heard, of features or of encoder states.

        Raises:
            InputError: for a model whose languages CTranslate2 cannot tell apart.
        """
        known = list(self.generation_config.lang_to_id)
        if len(known) > 1 and not self.model.is_multilingual:
            raise InputError("CTranslate2 does not detect the languages of this vocabulary: name one with --language")
        found = [known[0]] * len(heard)
        if len(known) > 1:
            found = [ranked[0][0] for ranked in self.model.detect_language(_storage(heard))]
        return [token.removeprefix("<|").removesuffix("|>") for token in found]

    def token_times(self, encoded: torch.Tensor, prompt: list[int], text: list[int], frames: int) -> list[float]:
        """Seconds at which each token of a text begins, and the last ends, as `word_times.token_times`: of one row.

        Args:
            encoded (`torch.Tensor`): `(1, positions, hidden)`.
            prompt (`list[int]`): start of transcript, language and task.
            text (`list[int]`): text tokens.
            frames (`int`): feature frames of audio in the window.
        """
        # A window that the model filled to its last position is two tokens longer in this form.
        read = text[: self.config.max_target_positions - len(prompt) - 2]
        (result,) = self.model.align(
            _storage(encoded), prompt, [read], max(2, frames), median_filter_width=self.config.median_filter_width
        )
        begins: dict[int, int] = {}
        for token, position in result.alignments:
            begins.setdefault(token, position)
        starts = [begins[token] * RESOLUTION for token in sorted(begins)]
        return starts + [starts[-1]] * (len(text) + 1 - len(starts))

    def _room(self, prompt: int) -> int:
        """How many tokens may be written behind a prompt of so many: as many as transformers writes."""
        most = self.config.max_target_positions - prompt
        wanted = self.generation_config.max_new_tokens or self.generation_config.max_length or most
        return min(wanted, most)

    def _latest_first_time(self) -> int:
        latest = getattr(self.generation_config, "max_initial_timestamp_index", None)
        return 2 * self.config.max_source_positions if latest is None else latest


AnyWhisper: TypeAlias = WhisperForConditionalGeneration | CTranslate2Whisper


def load_ctranslate2(
    name: str | os.PathLike, device: str | None = None, dtype: str | None = None
) -> tuple[CTranslate2Whisper, WhisperProcessor]:
    """Load a folder that `fastwhisper export --to ctranslate2` wrote.

    Args:
        name (`str` or `os.PathLike`): the folder.
        device (`str`, *optional*): for example `cpu` or `cuda:0`; by default CUDA if CTranslate2 finds it.
        dtype (`str`, *optional*): what CTranslate2 computes in, such as `int8` or `float32`; by default as saved.

    Raises:
        InputError: if CTranslate2 is not installed, for a folder that was not written so or is damaged, for a device
            or dtype that CTranslate2 does not have here.
    """
    check_installed("ctranslate2", extra="ctranslate2")
    folder = Path(name)
    for file in ("model.bin", SETTINGS_FILE):
        if not (folder / file).is_file():
            raise InputError(
                f"{name} has no {file}: write a folder for this engine with fastwhisper export MODEL --to ctranslate2"
            )
    check_model_folder(folder)
    with loading(folder, SETTINGS_FILE):
        config = FastWhisperConfig(**read_json(folder / SETTINGS_FILE))
    check_config(config, str(folder))
    with loading(folder, "the processor"):
        processor = WhisperProcessor.from_pretrained(folder, trust_remote_code=False)
    with loading(folder, "generation_config.json"):
        generation_config = GenerationConfig.from_pretrained(folder)
        complete_generation_config(generation_config, config, processor.tokenizer)
    whisper: Any = CTranslate2Whisper(_loaded(folder, device, dtype), config, generation_config)
    check_fit(whisper, processor, str(folder))
    return whisper, processor


def is_ctranslate2(name: str | os.PathLike) -> bool:
    """Whether a folder holds a model of CTranslate2 and none of transformers."""
    return Path(name, "model.bin").is_file() and not any(Path(name).glob("*.safetensors"))


def _loaded(folder: Path, device: str | None, dtype: str | None) -> Any:
    import ctranslate2

    here = ctranslate2.get_cuda_device_count()
    kind, _, index = (device or ("cuda" if here else "cpu")).partition(":")
    if kind not in ("cpu", "cuda") or not (index or "0").isdigit():
        raise InputError(f"CTranslate2 has no device {device!r}; give cpu, cuda or cuda:1")
    if kind == "cuda" and int(index or 0) >= here:
        raise InputError(f"there is no device {device!r} here: CTranslate2 finds {here} CUDA devices")
    known = ctranslate2.get_supported_compute_types(kind)
    if dtype is not None and dtype not in known:
        raise InputError(f"CTranslate2 has no dtype {dtype!r} on {kind}; choose one of {', '.join(sorted(known))}")
    level = ctranslate2.get_log_level()
    ctranslate2.set_log_level(logging.ERROR)  # float16 on a CPU, where float32 is as good, is worth no warning
    try:
        with loading(folder, "model.bin"):
            return ctranslate2.models.Whisper(
                str(folder),
                device=kind,
                device_index=int(index or 0),
                compute_type=dtype or "default",
                intra_threads=torch.get_num_threads(),
            )
    finally:
        ctranslate2.set_log_level(level)


def _storage(tensor: torch.Tensor) -> Any:
    import ctranslate2

    return ctranslate2.StorageView.from_array(np.ascontiguousarray(tensor.float().numpy()))


def _generated(tokens: list[int], score: float, room: int) -> Generated:
    is_ended = len(tokens) < room
    # CTranslate2 adds the probability of the end of text, but does not count it.
    return Generated(tokens, is_ended, score * max(1, len(tokens)) / (len(tokens) + is_ended))

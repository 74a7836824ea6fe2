"""FastWhisper: a Whisper student with fewer layers, built from any Whisper teacher.

Module names and weights are Whisper's own, so that every engine that runs Whisper runs the student.
"""

import copy
import os
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    Cache,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    WhisperConfig,
    WhisperForConditionalGeneration,
)
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.models.whisper.modeling_whisper import WhisperPreTrainedModel, shift_tokens_right
from transformers.utils import can_return_tuple

from ..configuration.configuration_fastwhisper import FastWhisperConfig
from ..configuration.saved_folder import checkpoint_name, write_own_code
from .greedy_whisper import GreedySearch, empty_cache, is_plain
from .true_length_whisper import TrueLengthModel
from .whisper_generation_config import complete_generation_config, lacks_prompt_tokens, last_half_heads

NOT_INHERITED = ("_name_or_path", "architectures", "attribute_map", "auto_map", "dtype")
MAX_LENGTH = 448


class FastWhisperForConditionalGeneration(WhisperForConditionalGeneration):
    r"""Whisper with a language modelling head, at the true length of its input, and with a loss for accumulation.

    It computes what the stock class does, with two exceptions. With `config.true_length`, features of 30 s are cut
    behind the end of the audio, in `generate` and `pipeline` too. With `num_items_in_batch`, the loss is the sum over
    target tokens divided by that number, so that `Seq2SeqTrainer` needs no correction.
    """

    config_class = FastWhisperConfig
    accepts_loss_kwargs = True
    _no_split_modules = TrueLengthModel._no_split_modules

    def __init__(self, config: WhisperConfig):
        # Not the stock constructor, which would build and initialise another model first.
        WhisperPreTrainedModel.__init__(self, config)
        self.model = TrueLengthModel(config)
        self.proj_out = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.max_target_positions = config.max_target_positions
        self._greedy_search = GreedySearch()
        self.post_init()

    @classmethod
    def from_teacher(
        cls,
        teacher: PreTrainedModel | str | os.PathLike,
        decoder_layers: int = 4,
        encoder_layers: int | None = None,
        **kwargs,
    ) -> "FastWhisperForConditionalGeneration":
        r"""Build a student from maximally spaced layers of a Whisper teacher; everything else is copied.

        The first and the last layer are always included; a single decoder layer is the teacher's last, which its
        output head was trained on. With all layers kept, the student gives the teacher's output: logits, prompts,
        beams and everything else set by its configs are equal. If the teacher's generation config has no languages or
        timestamps, the student's is completed from the tokenizer beside the teacher.

        Args:
            teacher (`PreTrainedModel`, `str` or `os.PathLike`):
                A Whisper model with a language modelling head, or the name or folder of one.
            decoder_layers (`int`, *optional*, defaults to 4):
                Decoder layers of the student.
            encoder_layers (`int`, *optional*):
                Encoder layers of the student; all of the teacher's by default.
            kwargs:
                Passed to `from_pretrained` if `teacher` is a name or folder, for example `revision` or `dtype`
                (float32 unless given).

        Raises:
            ValueError: for a teacher that is not a Whisper, is quantised or has adapters, or for layers that it lacks.

        Source: Distil-Whisper (arXiv 2311.00430), section 3, for the maximally spaced initialisation.
        """
        config = _teacher_config(teacher, kwargs)
        encoder_layers = config.encoder_layers if encoder_layers is None else encoder_layers
        decoder_map = spaced_layers(config.decoder_layers, decoder_layers, "decoder")
        encoder_map = spaced_layers(config.encoder_layers, encoder_layers, "encoder")
        if not isinstance(teacher, PreTrainedModel):
            kwargs.setdefault("dtype", torch.float32)
            teacher = WhisperForConditionalGeneration.from_pretrained(teacher, **kwargs)

        settings = {k: v for k, v in config.to_dict().items() if k not in NOT_INHERITED}
        settings.update(
            decoder_layers=decoder_layers,
            encoder_layers=encoder_layers,
            teacher=checkpoint_name(config._name_or_path),
            teacher_decoder_layers=config.decoder_layers,
            teacher_encoder_layers=config.encoder_layers,
            decoder_layer_map=decoder_map,
            encoder_layer_map=encoder_map,
            fastwhisper_version=_package_version(),
        )
        student = cls(FastWhisperConfig(**settings))
        student.to(dtype=teacher.dtype, device=teacher.device)  # type: ignore[call-arg]
        student.load_state_dict(_selected_weights(teacher.state_dict(), decoder_map, encoder_map))
        student.generation_config = _student_generation_config(teacher.generation_config, decoder_map, config)
        if lacks_prompt_tokens(student.generation_config):
            tokenizer = _tokenizer_beside(config._name_or_path, kwargs)
            if tokenizer is not None:
                complete_generation_config(student.generation_config, student.config, tokenizer)
        return student.train(teacher.training)

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | os.PathLike, is_main_process: bool = True, push_to_hub: bool = False, **kwargs
    ) -> None:
        """As [`PreTrainedModel.save_pretrained`]; the folder also holds the code that loads it without the package."""
        super().save_pretrained(save_directory, is_main_process=is_main_process, push_to_hub=push_to_hub, **kwargs)
        # Not left to the config: it may be remote code, while this class is the installed one.
        if is_main_process and os.path.isfile(os.path.join(save_directory, "config.json")):
            write_own_code(save_directory)

    def state_dict(self, *args, **kwargs) -> Any:
        """As that of every module; the adapters in the model, which peft saves next, will name Whisper as theirs."""
        # Here and not where the adapters come in: of a second one peft tells the model nothing.
        for adapter in vars(self).get("peft_config", {}).values():
            adapter.save_pretrained = partial(_save_adapter_config, adapter)
        return super().state_dict(*args, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.LongTensor | None = None,
        encoder_outputs: tuple[tuple[torch.Tensor]] | None = None,
        past_key_values: Cache | None = None,
        decoder_inputs_embeds: tuple[torch.Tensor] | None = None,
        decoder_position_ids: tuple[torch.LongTensor] | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        context_frames: Sequence[int] | torch.Tensor | None = None,
        true_length: bool | None = None,
        decoding_step: Callable[[], torch.Tensor] | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor] | Seq2SeqLMOutput:
        r"""As [`WhisperForConditionalGeneration.forward`], with features of any even length and more arguments.

        Args:
            context_frames (`Sequence[int]` or `torch.Tensor`, *optional*):
                Mel frames to encode of each row; found in `input_features` by default, with `config.true_length`.
            true_length (`bool`, *optional*):
                `False` encodes features of 30 s whole; `config.true_length` by default.
            decoding_step (`Callable`, *optional*):
                Makes `logits` in place of everything else: a step of [`GreedySearch`].
            num_items_in_batch (`int` or `torch.Tensor`, *optional*):
                Target tokens of the whole accumulated batch; the mean over the unmasked labels where it is `None`.
        """
        if decoding_step is not None:
            return Seq2SeqLMOutput(logits=decoding_step())
        if labels is not None:
            if labels.shape[1] > self.max_target_positions:
                raise ValueError(
                    f"Labels' sequence length {labels.shape[1]} cannot exceed the maximum allowed length of "
                    f"{self.max_target_positions} tokens."
                )
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                pad, start = self.config.pad_token_id, self.config.decoder_start_token_id
                decoder_input_ids = shift_tokens_right(labels, pad, start)  # type: ignore[arg-type]
        outputs = super().forward(
            input_features,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            decoder_inputs_embeds=decoder_inputs_embeds,
            decoder_position_ids=decoder_position_ids,
            use_cache=use_cache,
            return_dict=True,
            context_frames=context_frames,
            true_length=true_length,
            **kwargs,
        )
        if labels is not None:
            outputs.loss = nn.functional.cross_entropy(
                outputs.logits.flatten(0, 1),
                labels.to(outputs.logits.device).flatten(),
                reduction="mean" if num_items_in_batch is None else "sum",
            )
            if num_items_in_batch is not None:
                outputs.loss = outputs.loss / num_items_in_batch
        return outputs

    def generate(self, input_features: torch.Tensor | None = None, *args, **kwargs) -> Any:  # type: ignore[override]
        """As [`WhisperForConditionalGeneration.generate`]; the plain case, greedy text, is quicker on a CPU."""
        weight = self.proj_out.weight
        on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32 and not self.training
        if on_cpu and not args and is_plain(kwargs.get("generation_config") or self.generation_config, kwargs):
            kwargs.update(custom_generate=self._greedy_search, past_key_values=empty_cache())
        return super().generate(input_features, *args, **kwargs)


def spaced_layers(available: int, kept: int, part: str) -> list[int]:
    """Indices of `kept` maximally spaced layers out of `available`, including the first and last; `kept=1`: the last.

    Raises:
        ValueError: if `kept` is not between 1 and `available`; the message names `part` and both numbers.
    """
    if not 1 <= kept <= available:
        raise ValueError(
            f"{part}_layers={kept} is impossible: the teacher has {available} {part} layers, "
            f"so the student can keep 1 to {available}"
        )
    if kept == 1:
        return [available - 1]
    return [index * (available - 1) // (kept - 1) for index in range(kept)]


def map_alignment_heads(
    alignment_heads: list[list[int]] | None, decoder_layer_map: list[int], attention_heads: int
) -> list[list[int]]:
    """A teacher's alignment heads `[layer, head]` mapped to its student; all heads of the last half of the
    student's decoder if none survives.
    """
    position = {layer: index for index, layer in enumerate(decoder_layer_map)}
    mapped = [[position[layer], head] for layer, head in alignment_heads or [] if layer in position]
    return mapped or last_half_heads(len(decoder_layer_map), attention_heads)


def _teacher_config(teacher: nn.Module | str | os.PathLike, kwargs: dict) -> WhisperConfig:
    """The config of a teacher, whose weights are not loaded yet where it is a name or folder."""
    config: Any
    if isinstance(teacher, nn.Module):
        config, name = teacher.config, type(teacher).__name__
        is_whisper = isinstance(teacher, WhisperForConditionalGeneration)
    else:
        options = {name: value for name, value in kwargs.items() if name != "dtype"}
        config = AutoConfig.from_pretrained(teacher, **{"trust_remote_code": False, **options})
        is_whisper, name = config.model_type == "whisper", os.fspath(teacher)
    if getattr(teacher, "peft_config", None):
        raise ValueError(f"{name} has adapters, and a student starts from plain weights: merge them into it first")
    if not is_whisper:
        raise ValueError(
            f"the teacher must be a Whisper with a language modelling head; {name} "
            f"(model_type {config.model_type!r}) is not one"
        )
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError(f"{name} is quantised, but a student needs the weights from before quantisation")
    return config


def _tokenizer_beside(checkpoint: str, kwargs: dict) -> PreTrainedTokenizerBase | None:
    """The tokenizer in the folder or repository of a checkpoint; `None` if it has none, or without a name."""
    if not checkpoint:
        return None
    options = {
        name: kwargs[name]
        for name in ("revision", "token", "cache_dir", "local_files_only", "subfolder")
        if name in kwargs
    }
    try:
        return AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False, **options)
    except (OSError, ValueError):
        return None


def _save_adapter_config(adapter: Any, folder: str | os.PathLike, **kwargs) -> None:
    """As `PeftConfig.save_pretrained`, but records Whisper as the class that the adapters belong to.

    peft records the class of the model, but its `AutoPeftModel` only loads classes of transformers. Adapters
    fit both: the modules are the same.
    """
    if kwargs.get("auto_mapping_dict") is not None:
        whisper = WhisperForConditionalGeneration
        kwargs["auto_mapping_dict"] = {"base_model_class": whisper.__name__, "parent_library": whisper.__module__}
    type(adapter).save_pretrained(adapter, folder, **kwargs)


def _package_version() -> str | None:
    try:
        return metadata.version("fastwhisper")
    except metadata.PackageNotFoundError:
        return None


def _selected_weights(
    weights: dict[str, torch.Tensor], decoder_map: list[int], encoder_map: list[int]
) -> dict[str, torch.Tensor]:
    """The teacher's weights with only the layers of the two maps, renumbered."""
    selected = {name: weight for name, weight in weights.items() if ".layers." not in name}
    for part, layer_map in (("decoder", decoder_map), ("encoder", encoder_map)):
        for target, source in enumerate(layer_map):
            prefix = f"model.{part}.layers.{source}."
            selected.update(
                (f"model.{part}.layers.{target}.{name.removeprefix(prefix)}", weight)
                for name, weight in weights.items()
                if name.startswith(prefix)
            )
    return selected


def _student_generation_config(
    teacher: GenerationConfig, decoder_map: list[int], config: WhisperConfig
) -> GenerationConfig:
    """The teacher's generation config, unchanged except for what names layers or positions.

    Not even the deprecated `forced_decoder_ids` may go: `generate` would fall back on those in `config.json`,
    and the student would be prompted for another language or task than its teacher.
    """
    generation_config = copy.deepcopy(teacher)
    heads = getattr(teacher, "alignment_heads", None)
    heads = map_alignment_heads(heads, decoder_map, config.decoder_attention_heads)
    generation_config.alignment_heads = heads  # type: ignore[attr-defined]
    generation_config.max_length = min(teacher.max_length or MAX_LENGTH, MAX_LENGTH, config.max_target_positions)
    generation_config._from_model_config = False
    # Left over from speculative decoding, it would make a student stop after its first window.
    generation_config.__dict__.pop("force_unique_generate_call", None)
    return generation_config


__all__ = ["FastWhisperForConditionalGeneration"]

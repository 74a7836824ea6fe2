"""`fastwhisper convert-fastslm`: published FastSLM checkpoints into this package's form, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import run_parsed

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, WhisperConfig

    from ..configuration.configuration_fastslm import HFQFormerConfig

DESCRIPTION = (
    "Convert a published FastSLM checkpoint (.pt or .safetensors), or its adapter alone; --reverse goes back."
)
PATHS = ("paths", "CHECKPOINT OUT; put them before the flags")
WIDTH_OF_A_HEAD = 64


@dataclass
class ConvertArguments:
    """What the checkpoint does not hold itself."""

    language_model: str | None = field(
        default=None,
        metadata={"help": "name or folder of the base language model: its configuration, tokenizer, missing weights"},
    )
    encoder: str | None = field(
        default=None, metadata={"help": "name or folder of the Whisper, where the checkpoint has no encoder"}
    )
    lora: str = field(default="merge", metadata={"help": "merge LoRA into the language model, or keep it as OUT/lora"})
    lora_alpha: float = field(default=64.0, metadata={"help": "alpha of the checkpoint's LoRA"})
    attention_heads: int | None = field(
        default=None, metadata={"help": "heads of encoder and adapter; one for each 64 of their width otherwise"}
    )
    reverse: bool = field(default=False, metadata={"help": "CHECKPOINT is a folder of ours, OUT a file to write"})


def convert(paths: Sequence[str], arguments: ConvertArguments) -> None:
    """Convert, and print what was written.

    Raises:
        InputError: for wrong paths and options, and a checkpoint without what the conversion needs.
        ValueError: for unknown and missing weights; it lists them.
    """
    from ..errors import InputError

    if len(paths) != 2:
        raise InputError(f"give CHECKPOINT and OUT, not {len(paths)} paths")
    source, output = map(Path, paths)
    if arguments.lora not in ("merge", "keep"):
        raise InputError(f"lora {arguments.lora!r} is unknown; it is merge or keep")
    if not source.exists():
        raise InputError(f"there is no {source}")
    if output.exists():
        raise InputError(f"{output} exists already")
    if arguments.reverse:
        _publish(source, output)
    else:
        _convert(read_checkpoint(source), output, arguments)


def read_checkpoint(path: Path) -> "dict[str, torch.Tensor]":
    """The weights of a `.safetensors` file, or of a `.pt` file, which may hold nothing but weights.

    Raises:
        InputError: for a file that is neither.
    """
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from ..errors import InputError

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(f"{path} is no file of weights: {' '.join(str(error).split())[:200]}") from error
    for wrapper in ("model", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(weight, torch.Tensor) for weight in loaded.values()):
        raise InputError(f"{path} is no mapping of names to weights")
    return dict(loaded)


def adapter_config(
    adapter: "Mapping[str, torch.Tensor]", positions: int = 1500, heads: int | None = None
) -> "HFQFormerConfig":
    """The configuration that converted adapter weights were made with; heads of 64, as in every Whisper."""
    from ..configuration.configuration_fastslm import HFQFormerConfig

    stages = [weight.shape[0] for name, weight in sorted(adapter.items()) if name.startswith("compressors.") and
              name.endswith("queries")]  # fmt: skip
    queries, width = adapter["fusion.queries"].shape
    blocks = {name.split(".")[1] for name in adapter if name.startswith("blocks.")}
    return HFQFormerConfig(
        hidden_size=width,
        num_attention_heads=heads or width // WIDTH_OF_A_HEAD,
        max_source_positions=positions,
        stage_queries=stages,
        num_queries=queries,
        num_blocks=len(blocks),
    )


def encoder_config(encoder: "Mapping[str, torch.Tensor]", heads: int | None = None) -> "WhisperConfig":
    """The configuration that a converted encoder's weights were made with."""
    from transformers import WhisperConfig

    width, mel_bins = encoder["conv1.weight"].shape[:2]
    layers = {name.split(".")[1] for name in encoder if name.startswith("layers.")}
    return WhisperConfig(
        d_model=width,
        encoder_layers=len(layers),
        encoder_attention_heads=heads or width // WIDTH_OF_A_HEAD,
        encoder_ffn_dim=encoder["layers.0.fc1.weight"].shape[0],
        num_mel_bins=mel_bins,
        max_source_positions=encoder["embed_positions.weight"].shape[0],
    )


def _convert(published: "dict[str, torch.Tensor]", output: Path, arguments: ConvertArguments) -> None:
    from safetensors.torch import save_file

    from ..conversion.published_fastslm import convert_hfq_state_dict, split_published
    from ..errors import InputError
    from ..modeling.modeling_hfq_former import HFQFormer

    parts = split_published(published)
    adapter = convert_hfq_state_dict(parts["adapter"])
    if not parts["language_model"] and arguments.language_model is None:
        former = HFQFormer(adapter_config(adapter, heads=arguments.attention_heads))
        former.load_state_dict(adapter, strict=True)
        former.save_pretrained(output)
        if parts["multi_modal_projector"]:
            save_file(parts["multi_modal_projector"], output / "multi_modal_projector.safetensors")
        print(f"wrote the adapter to {output}")
        return
    if arguments.language_model is None:
        raise InputError("the checkpoint holds a language model: --language_model names the one that it began with")
    _convert_whole(parts, adapter, output, arguments)


def _convert_whole(
    parts: "dict[str, dict[str, torch.Tensor]]",
    adapter: "dict[str, torch.Tensor]",
    output: Path,
    arguments: ConvertArguments,
) -> None:
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer, WhisperFeatureExtractor

    from ..conversion.published_fastslm import merge_lora, peft_state_dict, split_lora
    from ..hub_cards.card import write_card
    from ..hub_cards.export import export_folder
    from ..modeling.modeling_fastslm import FastSLMForCausalLM
    from ..modeling.processing_fastslm import FastSLMProcessor

    encoder = _encoder(parts["audio_tower"], arguments)
    plain, lora = split_lora(parts["language_model"])
    language_model = AutoModelForCausalLM.from_pretrained(str(arguments.language_model))
    rows = plain.get("model.embed_tokens.weight")
    if rows is not None and len(rows) != language_model.config.vocab_size:
        language_model.resize_token_embeddings(len(rows))
    weights = {**language_model.state_dict(), **plain}
    if arguments.lora == "merge":
        weights = merge_lora(weights, lora, arguments.lora_alpha)
    language_model.load_state_dict(weights, strict=True)

    extractor = WhisperFeatureExtractor(
        feature_size=encoder.config.num_mel_bins, chunk_length=encoder.config.max_source_positions // 50
    )
    tokenizer = AutoTokenizer.from_pretrained(arguments.language_model)
    positions = encoder.config.max_source_positions
    FastSLMProcessor.from_parts(extractor, tokenizer, max_source_positions=positions)
    heads = arguments.attention_heads or encoder.config.encoder_attention_heads
    configuration = adapter_config(adapter, positions, heads)
    model = FastSLMForCausalLM.from_parts(encoder, language_model, configuration, tokenizer=tokenizer)
    model.model.adapter.load_state_dict(adapter, strict=True)
    model.model.multi_modal_projector.load_state_dict(parts["multi_modal_projector"], strict=True)
    export_folder(model, FastSLMProcessor.from_parts(extractor, tokenizer, model.config), output)
    write_card(output)
    if lora and arguments.lora == "keep":
        (output / "lora").mkdir()
        save_file(peft_state_dict(lora), output / "lora" / "adapter_model.safetensors")
        _lora_config(lora, arguments.lora_alpha).save_pretrained(output / "lora")
    kept = ", its LoRA beside it in lora/" if lora and arguments.lora == "keep" else ""
    print(f"wrote the model to {output}{kept}")


def _encoder(weights: "dict[str, torch.Tensor]", arguments: ConvertArguments) -> "PreTrainedModel":
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    from ..conversion.published_fastslm import convert_whisper_encoder
    from ..errors import InputError
    from ..modeling.speech_windows import load_speech_encoder

    if not weights:
        if arguments.encoder is None:
            raise InputError("the checkpoint has no encoder: --encoder names its Whisper")
        return load_speech_encoder(arguments.encoder)
    converted = convert_whisper_encoder(weights)
    encoder = WhisperEncoder(encoder_config(converted, arguments.attention_heads))
    encoder.load_state_dict(converted, strict=True)
    return encoder


def _lora_config(lora: "dict[str, tuple[torch.Tensor, torch.Tensor]]", alpha: float) -> Any:
    from peft import LoraConfig

    ranks = {down.shape[0] for down, _ in lora.values()}
    settings: dict[str, Any] = {"lora_alpha": alpha}
    return LoraConfig(
        **settings,
        r=max(ranks),
        lora_dropout=0.01,
        target_modules=r".*language_model\..*\.(" + "|".join(sorted({name.split(".")[-1] for name in lora})) + ")",
    )


def _publish(source: Path, output: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from ..conversion.published_fastslm import publish_hfq_state_dict, publish_whisper_encoder
    from ..modeling.modeling_fastslm import FastSLMForCausalLM

    model = FastSLMForCausalLM.from_pretrained(source)
    published = publish_hfq_state_dict(model.model.adapter.state_dict())
    published.update(publish_whisper_encoder(model.model.audio_tower.state_dict()))
    projector = model.model.multi_modal_projector.state_dict()
    published.update({f"encoder.llm_proj.{name}": weight for name, weight in projector.items()})
    body = model.model.language_model.state_dict()
    published.update({f"llm.base_model.model.model.{name}": weight for name, weight in body.items()})
    published["llm.base_model.model.lm_head.weight"] = model.lm_head.weight.detach()
    published = {name: weight.clone().contiguous() for name, weight in published.items()}
    if output.suffix == ".safetensors":
        save_file(published, output)
    else:
        torch.save(published, output)
    print(f"wrote {len(published)} weights by their published names to {output}")


def main(argv: Sequence[str]) -> None:
    run_parsed("fastwhisper convert-fastslm", DESCRIPTION, argv, ConvertArguments, convert, positional=PATHS)

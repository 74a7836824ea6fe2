"""`fastwhisper convert-fastslm`: convert published FastSLM checkpoints to this package's format, and back."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .arguments import Verb
from .shared_arguments import TrustArguments


@dataclass
class ConvertArguments:
    """Conversion."""

    language_model: str | None = field(
        default=None,
        metadata={"help": "base language model, for configuration, tokenizer and the weights missing from CHECKPOINT"},
    )
    encoder: str | None = field(default=None, metadata={"help": "Whisper, if CHECKPOINT has no encoder"})
    lora: str = field(
        default="merge",
        metadata={"help": "merge LoRA into the language model, or keep it as OUT/lora", "metavar": "MODE"},
    )
    lora_alpha: float = field(default=64.0, metadata={"help": "alpha of the checkpoint's LoRA"})
    attention_heads: int | None = field(
        default=None, metadata={"help": "heads of encoder and adapter; default: their width / 64"}
    )
    reverse: bool = field(
        default=False, metadata={"help": "convert a folder of this package (CHECKPOINT) to a published file (OUT)"}
    )


VERB = Verb(
    "fastwhisper convert-fastslm",
    "Convert a published FastSLM checkpoint (.pt or .safetensors) or just its adapter; --reverse converts back.",
    "fastwhisper convert-fastslm symphony.pt slm --language_model Qwen/Qwen3-4B",
    [ConvertArguments, TrustArguments],
    ("paths", "CHECKPOINT and OUT; put them before the flags"),
)


def run(paths: Sequence[str], arguments: ConvertArguments, trust: TrustArguments) -> None:
    """Convert and print what was written."""
    from pathlib import Path

    from ..conversion import fastslm_checkpoints as checkpoints
    from ..errors import InputError
    from ..files import new_folder
    from ..hub_cards.new_fastslm import write_fastslm
    from ..progress import quiet_transformers
    from ..transcription.speech_answers import load_fastslm

    if len(paths) != 2:
        raise InputError(f"give CHECKPOINT and OUT, not {len(paths)} paths; see fastwhisper convert-fastslm --help")
    source, output = map(Path, paths)
    if not source.exists():
        raise InputError(f"there is no {source}")
    if output.exists():
        raise InputError(f"{output} already exists: choose a new path or remove it")
    quiet_transformers()
    if arguments.reverse:
        model, _ = load_fastslm(str(source), device="cpu", trust_remote_code=trust.trust_remote_code)
        weights = checkpoints.publish(model)
        checkpoints.write_checkpoint(weights, output)
        print(f"wrote {len(weights)} weights under their published names to {output}")
        return
    published = checkpoints.read_checkpoint(source)
    if checkpoints.is_adapter_alone(published) and arguments.language_model is None:
        adapter, projector = checkpoints.convert_adapter(published, arguments.attention_heads)
        with new_folder(output) as place:
            checkpoints.save_adapter(adapter, projector, place)
        print(f"wrote the adapter to {output}")
        return
    if arguments.language_model is None:
        raise InputError("the checkpoint contains a language model: name its base with --language_model")
    converted = checkpoints.convert_checkpoint(
        published,
        arguments.language_model,
        arguments.encoder,
        arguments.lora,
        arguments.lora_alpha,
        arguments.attention_heads,
        trust.trust_remote_code,
    )

    def write_lora(place: Path) -> None:
        if converted.lora:
            checkpoints.save_lora(converted.lora, arguments.lora_alpha, place / "lora")

    write_fastslm(converted.model, converted.processor, output, write_lora, trust.trust_remote_code)
    print(f"wrote the model to {output}{', its LoRA beside it in lora/' if converted.lora else ''}")


def main(argv: Sequence[str]) -> None:
    VERB.run(argv, run)

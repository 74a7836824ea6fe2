"""Configuration of FastWhisper: a Whisper configuration that remembers how its student was made."""

from huggingface_hub.dataclasses import strict
from transformers import WhisperConfig


@strict
class FastWhisperConfig(WhisperConfig):
    r"""Configuration of a [`FastWhisperForConditionalGeneration`].

    `model_type` stays `"whisper"`: `pipeline`, prompts, CTranslate2 and vLLM are keyed on it, and a FastWhisper is a
    Whisper with fewer layers. The extra fields are a record and change no computation.

    Args:
        teacher (`str`, *optional*):
            Name of the checkpoint that the student was built from; the last path component for a local folder.
        teacher_decoder_layers (`int`, *optional*):
            Number of decoder layers of the teacher.
        teacher_encoder_layers (`int`, *optional*):
            Number of encoder layers of the teacher.
        decoder_layer_map (`list[int]`, *optional*):
            For each decoder layer of the student, the teacher layer that it was copied from.
        encoder_layer_map (`list[int]`, *optional*):
            For each encoder layer of the student, the teacher layer that it was copied from.
        fastwhisper_version (`str`, *optional*):
            Version of the package that built the student.
    """

    teacher: str | None = None
    teacher_decoder_layers: int | None = None
    teacher_encoder_layers: int | None = None
    decoder_layer_map: list[int] | None = None
    encoder_layer_map: list[int] | None = None
    fastwhisper_version: str | None = None


__all__ = ["FastWhisperConfig"]

"""Configuration of FastWhisper: a Whisper configuration that remembers how its student was made."""

import os
from typing import Any

from transformers.utils.versions import require_version

# ruff: noqa: E402
# Before importing what earlier versions lack, so that the error is one line that says so.
require_version("transformers>=5.20")

from huggingface_hub.dataclasses import strict
from transformers import WhisperConfig

from .saved_folder import write_own_code


@strict
class FastWhisperConfig(WhisperConfig):
    r"""Configuration of a [`FastWhisperForConditionalGeneration`].

    `model_type` stays `"whisper"`: `pipeline`, prompts, CTranslate2 and vLLM are keyed on it, and a FastWhisper is a
    Whisper with fewer layers. The extra fields are a record, except for the two of the true length.

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
        true_length (`bool`, *optional*, defaults to `False`):
            Encode a clip at its own length, not at 30 s. Only for a student that was trained so: others never stop
            writing.
        true_length_margin (`float`, *optional*, defaults to 0.5):
            Seconds of silence kept behind the clip; the sum is rounded up to a whole second.
    """

    teacher: str | None = None
    teacher_decoder_layers: int | None = None
    teacher_encoder_layers: int | None = None
    decoder_layer_map: list[int] | None = None
    encoder_layer_map: list[int] | None = None
    fastwhisper_version: str | None = None
    true_length: bool = False
    true_length_margin: float | int = 0.5

    def __post_init__(self, **kwargs):
        kwargs.pop("attribute_map", None)
        super().__post_init__(**kwargs)
        if not 0 <= self.true_length_margin < float("inf"):
            raise ValueError(f"true_length_margin={self.true_length_margin} must be seconds, 0 or more")

    def to_diff_dict(self) -> dict[str, Any]:
        """What `config.json` contains: the settings that differ from the defaults, and those for plain Whisper."""
        settings = super().to_diff_dict()
        return {**settings, **plain_whisper_settings()} if "auto_map" in settings else settings

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs) -> None:
        """As [`PreTrainedConfig.save_pretrained`], together with the code that the saved `auto_map` names."""
        super().save_pretrained(save_directory)
        write_own_code(save_directory)
        if push_to_hub:
            # Not left to the base class, which would upload before the code is written.
            repo_id = kwargs.pop("repo_id", os.path.basename(os.path.normpath(save_directory)))
            self.push_to_hub(repo_id, **kwargs)


def plain_whisper_settings() -> dict[str, Any]:
    """What the `config.json` of a folder with code tells programs that only know Whisper.

    `architectures` is the name that vLLM looks for. The `attribute_map` is Whisper's, and keeps `auto_map` out of what
    plain Whisper saves, where it would name code that is not saved.
    """
    # Plain Whisper runs none of our code, and saves every key of config.json that it does not know. All that the file
    # can do about that is to rename a key: `auto_map` becomes the one setting that every version (tried: 4.57
    # to 5.23) overwrites with the model's own name when it loads a model, and that none reads back.
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "attribute_map": {**WhisperConfig.attribute_map, "auto_map": "_name_or_path"},
    }


__all__ = ["FastWhisperConfig"]

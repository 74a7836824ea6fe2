"""Training arguments of the ASKD trainer."""

from dataclasses import dataclass
from typing import Any

from transformers import Seq2SeqTrainingArguments

from .askd_settings import ASKDSettings


@dataclass
class ASKDTrainingArguments(ASKDSettings, Seq2SeqTrainingArguments):
    r"""`Seq2SeqTrainingArguments` with the settings of [`ASKDSettings`].

    Raises:
        InputError: for an ASKD setting outside its range, before anything is loaded.
    """

    def __post_init__(self) -> None:
        ASKDSettings.__post_init__(self)
        # Every trainable weight has its part in every step, the output layer's outside the wrapped forward pass, where
        # a search for unused ones would not see it. A student with layerdrop needs `True`.
        if self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters = False
        Seq2SeqTrainingArguments.__post_init__(self)

    def __getstate__(self) -> dict[str, Any]:
        """The settings without the token: `training_args.bin` is a pickle of them."""
        return {**self.__dict__, "hub_token": None}

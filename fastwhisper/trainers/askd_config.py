"""Training arguments of the ASKD trainer."""

from dataclasses import dataclass

from transformers import Seq2SeqTrainingArguments

from .askd_options import ASKDOptions


@dataclass
class ASKDTrainingArguments(ASKDOptions, Seq2SeqTrainingArguments):
    r"""`Seq2SeqTrainingArguments` with the settings of [`ASKDOptions`].

    Raises:
        ValueError: for an ASKD setting outside its range, before anything is loaded.
    """

    def __post_init__(self) -> None:
        ASKDOptions.__post_init__(self)
        Seq2SeqTrainingArguments.__post_init__(self)

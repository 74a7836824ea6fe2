"""Training arguments of the ASKD trainer, and the ways of running it that are refused."""

from dataclasses import dataclass
from typing import Any

from accelerate.utils import DynamoBackend, TorchDynamoPlugin, parse_flag_from_env
from transformers import Seq2SeqTrainingArguments

from ..errors import InputError
from .askd_settings import ASKDSettings
from .training_checks import check_numbers, check_parts


@dataclass
class ASKDTrainingArguments(ASKDSettings, Seq2SeqTrainingArguments):
    r"""`Seq2SeqTrainingArguments` with the settings of [`ASKDSettings`].

    Raises:
        InputError: for a setting outside its range or not finite, or for FSDP, DeepSpeed ZeRO-3, torch.compile and
            other ways of running that ASKD is not tested with; raised before anything is loaded.
    """

    def __post_init__(self) -> None:
        ASKDSettings.__post_init__(self)
        # Every trainable weight takes part in every step, the output layer's outside the wrapped forward pass, where
        # a search for unused weights would miss it. A student with layerdrop needs `True`.
        if self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters = False
        check_numbers(self)
        try:
            Seq2SeqTrainingArguments.__post_init__(self)
        except TypeError as error:  # a JSON object with a key that nothing takes
            raise InputError(str(error)) from error
        check_way_of_running(self)
        check_parts(self)

    def __getstate__(self) -> dict[str, Any]:
        """The settings without the token: `training_args.bin` is a pickle of them."""
        return {**self.__dict__, "hub_token": None}


def check_way_of_running(arguments: Seq2SeqTrainingArguments) -> None:
    """Refuse what shards or compiles the student: the loss reads the output layer's weight outside the forward pass.

    Both the settings and the environment set by `accelerate launch` are checked.

    Raises:
        InputError: names what is refused and what to leave out.
    """
    deepspeed = arguments.deepspeed_plugin
    if arguments.fsdp or parse_flag_from_env("ACCELERATE_USE_FSDP"):
        refused, without = "FSDP", "fsdp, or --use_fsdp of accelerate launch"
    elif deepspeed is not None and deepspeed.zero_stage == 3:
        refused, without = "DeepSpeed ZeRO-3", "stage 3 of DeepSpeed's zero_optimization"
    elif TorchDynamoPlugin(backend=arguments.torch_compile_backend).backend != DynamoBackend.NO:
        refused, without = "torch.compile", "torch_compile, or --dynamo_backend of accelerate launch"
    elif arguments.parallelism_config is not None or parse_flag_from_env("ACCELERATE_USE_PARALLELISM_CONFIG"):
        refused, without = "accelerate's ParallelismConfig", "parallelism_config"
    else:
        return
    raise InputError(
        f"ASKD is not tested with {refused}: its loss reads the output layer's weight outside the forward pass. Leave "
        f"out {without}; one process per GPU works (accelerate launch --multi_gpu)"
    )

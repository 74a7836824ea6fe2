"""Ways of running that ASKD is not tested with are refused before the first step; one process a GPU is not."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import ParallelismConfig
from peft import LoraConfig, get_peft_model

from fastwhisper import ASKDTrainingArguments, FastWhisperForConditionalGeneration
from fastwhisper.errors import InputError

STAGES = {"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": "auto"}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Make arguments, with variables that a launcher has set; what transformers sets itself is undone."""
    for name in ("FSDP_CPU_RAM_EFFICIENT_LOADING", "ACCELERATE_USE_FSDP", "ACCELERATE_DYNAMO_BACKEND"):
        monkeypatch.setenv(name, "no")

    def make(variables=None, **settings):
        for name, value in (variables or {}).items():
            monkeypatch.setenv(name, value)
        return ASKDTrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True, **settings)

    return make


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({"fsdp": True}, "FSDP"),
        ({"fsdp": True, "fsdp_config": {"version": 2, "reshard_after_forward": False}}, "FSDP"),
        ({"variables": {"ACCELERATE_USE_FSDP": "true"}}, "FSDP"),
        ({"torch_compile": True}, "torch.compile"),
        ({"torch_compile_backend": "eager"}, "torch.compile"),
        ({"torch_compile_mode": "reduce-overhead"}, "torch.compile"),
        ({"variables": {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}}, "torch.compile"),
        ({"parallelism_config": ParallelismConfig()}, "ParallelismConfig"),
        ({"variables": {"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}}, "ParallelismConfig"),
    ],
)
def test_what_shards_or_compiles_is_refused_with_the_arguments(settings, given, refused):
    with pytest.raises(InputError, match=f"not tested with .*{refused}.*Leave out .*one process per GPU works"):
        settings(**given)


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_is_refused_where_it_shards_the_weights(settings, stage):
    pytest.importorskip("deepspeed")
    launched = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage)}
    config = {**STAGES, "zero_optimization": {"stage": stage}}
    for given in ({"deepspeed": config}, {"variables": launched}):
        if stage == 2:
            assert settings(**given).deepspeed_plugin.zero_stage == 2
        else:
            with pytest.raises(InputError, match="not tested with DeepSpeed ZeRO-3"):
                settings(**given)


def test_settings_changed_later_are_refused_by_the_trainer(make_trainer, monkeypatch):
    """Also without DeepSpeed: the trainer looks at what the arguments hold of it."""
    checked = ASKDTrainingArguments.__post_init__

    def with_zero_3(self):
        checked(self)
        self.deepspeed_plugin = SimpleNamespace(zero_stage=3)

    monkeypatch.setattr(ASKDTrainingArguments, "__post_init__", with_zero_3)
    with pytest.raises(InputError, match="not tested with DeepSpeed ZeRO-3"):
        make_trainer()


@pytest.mark.parametrize("compiled", ["student", "teacher"])
@pytest.mark.parametrize("how", [torch.compile, torch.nn.Module.compile])
def test_a_compiled_model_is_refused(make_trainer, teacher, compiled, how):
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, 2)
    models = {"student": student, "teacher": teacher}
    wrapped = how(models[compiled])
    models[compiled] = models[compiled] if wrapped is None else wrapped
    with pytest.raises(InputError, match=f"a compiled {compiled}"):
        make_trainer(**models)


def test_a_compiled_model_with_adapters_is_refused(make_trainer, teacher):
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, 2)
    student.compile()
    with pytest.raises(InputError, match="a compiled student"):
        make_trainer(student=get_peft_model(student, LoraConfig(r=2, target_modules=["q_proj"])), teacher=teacher)


def test_what_is_tested_is_let_through(settings):
    launched = {"ACCELERATE_USE_FSDP": "false", "ACCELERATE_DYNAMO_BACKEND": "NO", "ACCELERATE_USE_CPU": "true"}
    assert settings(launched, activation_checkpointing=True).fsdp_plugin_args is None

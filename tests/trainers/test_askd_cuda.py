"""ASKD on a CUDA device: the same curve as on the CPU, bfloat16 beside it, and a teacher that leaves the device."""

import pytest
import torch

from ..tiny_models import tiny_whisper
from .conftest import logged
from .true_length_runs import true_length_trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

PARTS = ("loss", "ce", "teacher_kl", "self_kl", "teacher_weight", "self_weight")


@pytest.fixture(autouse=True)
def _exact_products():
    """float32 as on the CPU: no TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"schedule": "gap", "freeze_encoder": False},
        {"mode": "joint", "self_teacher": "ema", "temperature": 2.0, "token_gate": True},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2},
    ],
)
def test_the_curve_is_that_of_the_cpu(make_trainer, settings):
    curves = {}
    for device in ("cpu", "cuda"):
        trainer = make_trainer(max_steps=6, use_cpu=device == "cpu", folder=device, **settings)
        trainer.train()
        assert trainer.model.device.type == device
        curves[device] = [logged(trainer, part) for part in PARTS]
    assert curves["cuda"] == [pytest.approx(curve, rel=1e-3, abs=1e-4) for curve in curves["cpu"]]


def test_bfloat16_stays_near_float32(make_trainer, demo_tokenizer):
    curves = {}
    for bf16 in (False, True):
        teacher = tiny_whisper(demo_tokenizer)
        trainer = make_trainer(max_steps=6, use_cpu=False, bf16=bf16, teacher=teacher, folder=f"bf16-{bf16}")
        if bf16:
            teacher.to(torch.bfloat16)
        trainer.train()
        assert next(trainer.model.parameters()).dtype == torch.float32
        curves[bf16] = logged(trainer)
    assert curves[True] == pytest.approx(curves[False], rel=0.05)


def test_a_teacher_without_weight_leaves_the_device(make_trainer):
    trainer = make_trainer(max_steps=6, use_cpu=False, teacher_decay_end=0.5)
    assert trainer.teacher_model.model.decoder.embed_tokens.weight.is_cuda
    trainer.train()
    assert not any(parameter.is_cuda for parameter in trainer.teacher_model.model.decoder.parameters())


def test_resumed_on_the_device(make_trainer):
    settings = {"max_steps": 6, "use_cpu": False, "save_strategy": "steps", "save_steps": 3}
    whole = make_trainer(**settings)
    whole.train()
    resumed = make_trainer(**settings)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-3")
    assert logged(resumed)[-3:] == pytest.approx(logged(whole)[-3:], rel=1e-4)


def test_true_length_is_that_of_the_cpu(demo_tokenizer, tmp_path):
    """The teacher's decoder leaves the device half way, its encoder stays for the distance."""
    seconds = [0.3, 0.4, 1.2, 1.3, 2.2, 2.3, 3.2, 3.9]
    settings = {"encoder_weight": 0.5, "encoder_learning_rate": 5e-4, "teacher_decay_end": 0.5, "max_steps": 6}
    curves = {}
    for device in ("cpu", "cuda"):
        trainer = true_length_trainer(
            demo_tokenizer, tmp_path / device, seconds, **{**settings, "use_cpu": device == "cpu"}
        )
        trainer.train()
        assert trainer.model.device.type == trainer.teacher_model.model.encoder.conv1.weight.device.type == device
        curves[device] = [logged(trainer, part) for part in (*PARTS, "encoder_mse")]
    assert curves["cuda"] == [pytest.approx(curve, rel=1e-3, abs=1e-4) for curve in curves["cpu"]]

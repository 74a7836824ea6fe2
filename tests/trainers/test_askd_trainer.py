import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from fastwhisper import ASKDTrainer, ASKDTrainingArguments, FastWhisperForConditionalGeneration
from fastwhisper.modeling.true_length_whisper import TrueLengthEncoder
from fastwhisper.trainers.askd_teachers import shares_encoder

from ..tiny_models import CHECKPOINTING, tiny_whisper
from .conftest import LargestTensor, assert_same_training, collate, logged, make_rows


def reference_loss(student, teacher, self_teacher, batch, teacher_weight, self_weight, temperature=1.0, gate=False):
    """Mean loss per target token in float64, from the stock forward passes with full logits."""
    labels = batch["labels"]
    targets = labels != -100
    start = torch.full_like(labels[:, :1], student.config.decoder_start_token_id)
    ids = torch.cat([start, labels[:, :-1].masked_fill(~targets[:, :-1], student.config.pad_token_id)], dim=1)

    def logits(model):
        model = copy.deepcopy(model).double().eval()
        features = batch["input_features"].double()
        return model(input_features=features, decoder_input_ids=ids).logits[targets]

    def log_softmax(x):
        return x - torch.logsumexp(x, -1, keepdim=True)

    gold = labels[targets][:, None]
    z, t = logits(student), logits(teacher)
    ce = -log_softmax(z).gather(1, gold)[:, 0]
    t_tau, s_tau = log_softmax(t / temperature), log_softmax(z / temperature)
    teacher_kl = (t_tau.exp() * (t_tau - s_tau)).sum(-1)
    if gate:
        teacher_kl = teacher_kl * (-log_softmax(t).gather(1, gold)[:, 0] < ce)
    self_kl = torch.zeros_like(ce)
    if self_teacher is not None:
        q = log_softmax(logits(self_teacher))
        self_kl = (q.exp() * (q - log_softmax(z))).sum(-1)
    ce, teacher_kl, self_kl = ce.mean(), teacher_kl.mean(), self_kl.mean()
    return (
        (1 - teacher_weight - self_weight) * ce + teacher_weight * temperature**2 * teacher_kl + self_weight * self_kl
    )


@pytest.mark.parametrize("freeze_encoder", [True, False])
@pytest.mark.parametrize("settings", [{}, {"temperature": 2.0}, {"token_gate": True}], ids=str)
def test_first_step_is_the_formula(make_trainer, settings, freeze_encoder):
    trainer = make_trainer(max_steps=1, rows=4, freeze_encoder=freeze_encoder, **settings)
    batch = collate(trainer.train_dataset)
    expected = reference_loss(
        trainer.model, trainer.teacher_model, None, batch, 0.8, 0.0,
        temperature=settings.get("temperature", 1.0), gate=settings.get("token_gate", False),
    )  # fmt: skip
    trainer.train()
    assert logged(trainer) == pytest.approx([expected.item()], rel=1e-5)


def test_self_distillation_is_the_formula(make_trainer):
    """Third step of four in mode joint: the snapshot was taken before step two, when alpha left 0."""
    trainer = make_trainer(rows=4, mode="joint", per_device_train_batch_size=4, dataloader_drop_last=True)
    seen = []
    loss_sums = trainer._loss_sums

    def watched(model, inputs):
        students = copy.deepcopy(trainer.model), copy.deepcopy(getattr(trainer.self_teacher, "model", None))
        weights = trainer.weights
        batch = {name: value.clone() for name, value in inputs.items()}
        sums = loss_sums(model, inputs)
        seen.append((*students, batch, weights, float(sums.loss.detach() / batch["labels"].ne(-100).sum())))
        return sums

    trainer._loss_sums = watched
    trainer.train()
    assert [round(item[3].self_weight, 6) for item in seen] == [0.0, 0.125, 0.25, 0.375]
    for student, self_teacher, batch, weights, loss in seen:
        expected = reference_loss(
            student, trainer.teacher_model, self_teacher, batch, weights.teacher_weight, weights.self_weight
        )
        assert loss == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mode": "joint", "temperature": 2.0},
        {"schedule": "cosine", "self_teacher": "ema"},
        {"schedule": "gap"},
        {"schedule": "constant", "token_gate": True},
        {"teacher_weight": 0.0, "self_weight": 0.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("logging_steps", [1, 4])
def test_parts_and_weights_recombine_to_the_loss(make_trainer, settings, logging_steps):
    trainer = make_trainer(max_steps=8, logging_steps=logging_steps, gradient_accumulation_steps=2, **settings)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert len(lines) == 8 // logging_steps
    tau = settings.get("temperature", 1.0)
    for line in lines:
        teacher_weight, self_weight = line["teacher_weight"], line["self_weight"]
        recombined = (
            (1 - teacher_weight - self_weight) * line["ce"]
            + teacher_weight * tau**2 * line["teacher_kl"]
            + self_weight * line["self_kl"]
        )
        assert recombined == pytest.approx(line["loss"], rel=1e-5)
    assert ("gap" in lines[-1]) == (settings.get("schedule") == "gap")


def test_accumulation_changes_nothing(make_trainer, demo_tokenizer):
    settings = {"rows": 8, "max_steps": 3, "mode": "joint", "dataloader_drop_last": True, "schedule": "gap"}
    whole = make_trainer(per_device_train_batch_size=8, folder="whole", **settings)
    parts = make_trainer(per_device_train_batch_size=1, gradient_accumulation_steps=8, folder="parts", **settings)
    whole.train()
    parts.train()
    assert_same_training(parts, whole, ("loss", "ce", "teacher_kl", "self_kl", "grad_norm", "teacher_weight"))


class Calls:
    """Counts the forward calls of a module."""

    def __init__(self, module):
        self.count = 0
        module.register_forward_hook(self._hook)

    def _hook(self, *_):
        self.count += 1


def test_encoder_runs_once_per_batch(make_trainer):
    trainer = make_trainer(mode="joint")
    student, teacher = Calls(trainer.model.model.encoder), Calls(trainer.teacher_model.model.encoder)
    trainer.train()
    assert (student.count, teacher.count) == (4, 0)


def counted(forward, calls):
    return lambda self, *args, **kwargs: calls.append(self) or forward(self, *args, **kwargs)


def test_trainable_encoder_runs_once_per_model(make_trainer, monkeypatch):
    calls = []
    for encoder_class in (WhisperEncoder, TrueLengthEncoder):
        monkeypatch.setattr(encoder_class, "forward", counted(encoder_class.forward, calls))
    trainer = make_trainer(mode="joint", freeze_encoder=False)
    trainer.train()
    student, teacher = trainer.model.model.encoder, trainer.teacher_model.model.encoder
    self_teacher = trainer.self_teacher.model.model.encoder
    assert [sum(call is encoder for call in calls) for encoder in (student, teacher, self_teacher)] == [4, 4, 3]


@pytest.mark.parametrize("settings", [{}, {"teacher_weight": 0.0}], ids=str)
def test_teacher_is_not_called_once_its_weight_is_zero(make_trainer, settings):
    trainer = make_trainer(max_steps=10, **settings)
    teacher = Calls(trainer.teacher_model)
    trainer.train()
    steps_with_teacher = sum(weight > 0 for weight in logged(trainer, "teacher_weight"))
    assert teacher.count == steps_with_teacher == (0 if settings else 7)
    assert logged(trainer, "self_weight")[-1] > 0


def test_gap_lets_a_worse_teacher_go(make_trainer, demo_tokenizer):
    """A random teacher soon knows less than the student: lambda falls below the linear schedule, and stays at 0."""
    student_of = tiny_whisper(demo_tokenizer, seed=1)
    student = FastWhisperForConditionalGeneration.from_teacher(student_of, decoder_layers=2)
    trainer = make_trainer(student=student, schedule="gap", max_steps=30, learning_rate=3e-2, gap_decay=0.5)
    teacher = Calls(trainer.teacher_model)
    trainer.train()
    weights = logged(trainer, "teacher_weight")
    assert weights[0] == pytest.approx(0.8)
    first_zero = weights.index(0.0)
    assert first_zero < 20 and not any(weights[first_zero:])
    assert teacher.count == first_zero


def test_no_step_builds_the_logits_of_a_batch(make_trainer, demo_tokenizer):
    rows = make_rows(4, len(demo_tokenizer))
    for row in rows:
        row["labels"] = torch.ones(60, dtype=torch.long)
    trainer = make_trainer(dataset=rows, mode="joint", max_steps=2, loss_chunk_size=16)
    with LargestTensor() as largest:
        trainer.train()
    assert largest.elements < 4 * 60 * len(demo_tokenizer)


def test_frozen_encoder_and_teacher_stay_as_they_were(make_trainer):
    trainer = make_trainer(mode="joint")
    before = copy.deepcopy(trainer.teacher_model.state_dict())
    encoder = copy.deepcopy(trainer.model.model.encoder.state_dict())
    decoder = copy.deepcopy(trainer.model.model.decoder.state_dict())
    trainer.train()
    assert all(torch.equal(before[name], weight) for name, weight in trainer.teacher_model.state_dict().items())
    assert all(torch.equal(encoder[name], weight) for name, weight in trainer.model.model.encoder.state_dict().items())
    assert not all(
        torch.equal(decoder[name], weight) for name, weight in trainer.model.model.decoder.state_dict().items()
    )


def test_spec_augment_masks_the_student_not_the_teacher(make_trainer, demo_tokenizer):
    teacher = tiny_whisper(demo_tokenizer, apply_spec_augment=True, mask_time_prob=0.5, mask_time_length=10)
    trainer = make_trainer(teacher=teacher, freeze_encoder=False, max_steps=1)
    heard = {}
    for name, model in (("student", trainer.model), ("teacher", trainer.teacher_model)):
        model.model.encoder.register_forward_pre_hook(
            lambda module, args, kwargs, name=name: heard.update({name: (args or list(kwargs.values()))[0].clone()}),
            with_kwargs=True,
        )
    trainer.train()
    assert (heard["student"] == 0).any() and not (heard["teacher"] == 0).any()


def test_snapshot_is_renewed_every_epoch_and_ema_every_step(make_trainer):
    """Two steps an epoch; alpha leaves 0 at the second step of the first."""

    def self_teachers(**settings):
        trainer = make_trainer(max_steps=6, mode="joint", **settings)
        states = []
        end_step = trainer._end_step

        def watched():
            end_step()
            if trainer.self_teacher is not None:
                states.append(trainer.self_teacher.model.proj_out.weight.clone())

        trainer._end_step = watched
        trainer.train()
        return [not torch.equal(a, b) for a, b in zip(states, states[1:], strict=False)]

    assert self_teachers(folder="snapshot") == [True, False, True, False]
    assert self_teachers(folder="ema", self_teacher="ema", ema_decay=0.5) == [True] * 4


@pytest.mark.parametrize("settings", [{"bf16": True}, {CHECKPOINTING: True}], ids=str)
def test_precision_and_checkpointing(make_trainer, settings):
    plain = make_trainer(mode="joint", freeze_encoder=False)
    plain.train()
    other = make_trainer(mode="joint", freeze_encoder=False, folder="other", **settings)
    other.train()
    tolerance = 3e-2 if "bf16" in settings else 1e-5
    assert logged(other) == pytest.approx(logged(plain), rel=tolerance)


def test_streaming_dataset(make_trainer, demo_tokenizer):
    from datasets import IterableDataset

    def rows():
        yield from make_rows(10, len(demo_tokenizer))

    stream = IterableDataset.from_generator(rows).with_format("torch")
    trainer = make_trainer(dataset=stream, max_steps=5)
    trainer.train()
    assert trainer.state.global_step == 5 and all(torch.isfinite(torch.tensor(logged(trainer))))


def test_predict_with_generate(make_trainer, demo_tokenizer):
    trainer = make_trainer(predict_with_generate=True, max_steps=1, generation_max_length=12)
    rows = make_rows(3, len(demo_tokenizer), seed=1)
    output = trainer.predict(rows)
    assert output.predictions.shape[0] == 3 and output.metrics["test_loss"] > 0


def test_evaluation_reports_the_plain_cross_entropy(make_trainer, demo_tokenizer):
    trainer = make_trainer(per_device_eval_batch_size=4)
    rows = make_rows(4, len(demo_tokenizer), seed=1)
    batch = collate(rows)
    stock = WhisperForConditionalGeneration(trainer.model.config).eval()
    stock.load_state_dict(trainer.model.state_dict())
    with torch.no_grad():
        expected = float(stock(**batch).loss)
    assert trainer.evaluate(rows)["eval_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("freeze_encoder", [True, False])
def test_lora(make_trainer, demo_tokenizer, freeze_encoder, tmp_path):
    teacher = tiny_whisper(demo_tokenizer)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    student = get_peft_model(student, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    trainer = make_trainer(
        student=student, teacher=teacher, mode="joint", freeze_encoder=freeze_encoder, learning_rate=1e-2
    )
    assert trainer._encoder_is_shared == freeze_encoder
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and all("lora_" in name for name in moved)
    assert any(".encoder." in name for name in moved) != freeze_encoder
    trainer.save_model(str(tmp_path / "adapter"))
    fresh = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    merged = PeftModel.from_pretrained(fresh, str(tmp_path / "adapter")).merge_and_unload().eval()
    batch = collate(trainer.train_dataset)
    trainer.model.eval()
    with torch.no_grad():
        torch.testing.assert_close(merged(**batch).logits, trainer.model(**batch).logits, rtol=1e-3, atol=1e-4)


def test_second_training_starts_a_new_curriculum(make_trainer):
    trainer = make_trainer(max_steps=10)
    trainer.train()
    trainer.train()
    assert logged(trainer, "teacher_weight")[0] == pytest.approx(0.8)


def test_second_training_does_not_log_the_end_of_the_first(make_trainer):
    """Four steps with a line every three: the fourth is never logged."""
    trainer = make_trainer(max_steps=4, logging_steps=3)
    trainer.train()
    first = logged(trainer, "teacher_weight")
    trainer.train()
    assert logged(trainer, "teacher_weight") == pytest.approx(first)


# ---- refusals, before the first step ----


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mel_bins": 128}, "num_mel_bins 128 .teacher. against 80"),
        ({"seconds": 4}, "max_source_positions 200 .teacher. against 100"),
    ],
    ids=str,
)
def test_a_teacher_that_hears_otherwise_is_refused(make_trainer, demo_tokenizer, change, words):
    student = FastWhisperForConditionalGeneration.from_teacher(tiny_whisper(demo_tokenizer), decoder_layers=2)
    with pytest.raises(ValueError, match=words):
        make_trainer(student=student, teacher=tiny_whisper(demo_tokenizer, **change))


def test_a_teacher_with_another_vocabulary_is_refused(make_trainer, demo_tokenizer):
    student = FastWhisperForConditionalGeneration.from_teacher(tiny_whisper(demo_tokenizer), decoder_layers=2)
    larger = copy.deepcopy(demo_tokenizer)
    larger.add_tokens(["<|4.02|>"])
    with pytest.raises(ValueError, match="vocab_size 851 .teacher. against 850"):
        make_trainer(student=student, teacher=tiny_whisper(larger))


def test_another_sampling_rate_and_other_ids_are_refused(make_trainer, demo_tokenizer, tmp_path):
    from transformers import WhisperFeatureExtractor, WhisperProcessor

    from fastwhisper.synthetic_speech.demo_tokenizer import build_demo_tokenizer

    teacher = tiny_whisper(demo_tokenizer)
    mine = WhisperProcessor(WhisperFeatureExtractor(chunk_length=2), demo_tokenizer)
    its = WhisperProcessor(WhisperFeatureExtractor(chunk_length=2, sampling_rate=8000), build_demo_tokenizer(seed=1))
    with pytest.raises(ValueError, match="sampling_rate 8000 .teacher. against 16000.*different ids"):
        ASKDTrainer(
            model=FastWhisperForConditionalGeneration.from_teacher(teacher, 2),
            teacher_model=teacher,
            args=ASKDTrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True),
            processing_class=mine,
            teacher_processing_class=its,
        )


def test_missing_teacher_and_label_smoothing_are_refused(teacher, tmp_path):
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, 2)
    args = ASKDTrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    with pytest.raises(ValueError, match="teacher_weight=0.8 needs a teacher_model"):
        ASKDTrainer(model=student, args=args)
    args.label_smoothing_factor = 0.1
    with pytest.raises(ValueError, match="label_smoothing_factor"):
        ASKDTrainer(model=student, teacher_model=teacher, args=args)


def test_adapted_output_layer_is_refused(teacher, make_trainer):
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, 2)
    student = get_peft_model(student, LoraConfig(r=2, target_modules=["q_proj", "proj_out"]))
    with pytest.raises(ValueError, match="proj_out"):
        make_trainer(student=student, teacher=teacher)


def test_too_long_labels_are_named(make_trainer, demo_tokenizer):
    rows = make_rows(4, len(demo_tokenizer))
    rows[1]["labels"] = torch.ones(65, dtype=torch.long)
    with pytest.raises(ValueError, match="65 tokens do not fit the decoder's 64 positions"):
        make_trainer(dataset=rows).train()


def test_encoders_are_compared_by_weight(teacher):
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, 2)
    assert not shares_encoder(student, teacher)  # still trainable
    student.freeze_encoder()
    assert shares_encoder(student, teacher)
    student.model.encoder.conv1.weight.data[0, 0, 0] += 1e-3
    assert not shares_encoder(student, teacher)

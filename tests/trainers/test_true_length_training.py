"""Training at true length against stock Whispers with a window as long as the row, one row at a time."""

import copy
import math

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.data.collator import SpeechCollator
from fastwhisper.errors import InputError
from fastwhisper.trainers.encoder_distance import EncoderDistance
from fastwhisper.trainers.true_length_rows import cutting

from ..hub_folders import demo_processor
from ..tiny_models import tiny_whisper
from .conftest import assert_same_training, logged, make_rows
from .true_length_runs import WINDOW_SECONDS, noise_rows, true_length_trainer

# Contexts of 1, 1, 2, 2, 3 and 4 s with the margin of half a second.
SECONDS = [0.31, 0.5, 0.51, 1.2, 2.345, 3.9]


@pytest.fixture
def make_trainer(demo_tokenizer, tmp_path):
    def build(seconds=SECONDS, folder="run", **settings):
        return true_length_trainer(demo_tokenizer, tmp_path / folder, seconds, **settings)

    return build


def cut_whisper(model, frames):
    """A stock Whisper of the same weights in float64, whose window is `frames` long."""
    config = model.config.to_dict()
    for name in ("true_length", "true_length_margin", "model_type", "architectures", "dtype", "torch_dtype"):
        config.pop(name, None)
    stock = WhisperForConditionalGeneration(WhisperConfig(**{**config, "max_source_positions": frames // 2})).double()
    weights = {name: weight.double() for name, weight in model.state_dict().items()}
    places = "model.encoder.embed_positions.weight"
    weights[places] = weights[places][: frames // 2]
    stock.load_state_dict(weights)
    return stock.train()


def row_terms(student, teacher, row, frames, pad, start):
    """Cross-entropy, divergence and squared distance of a row, summed, and its numbers of tokens and positions."""
    samples = row["audio"]["array"]
    features = WhisperFeatureExtractor(chunk_length=WINDOW_SECONDS)(
        samples, sampling_rate=16_000, return_tensors="pt"
    ).input_features.double()
    labels = torch.tensor(row["labels"])
    ids = torch.cat([torch.tensor([start]), labels[:-1]])[None]
    mine = student(input_features=features[..., :frames], decoder_input_ids=ids)
    with torch.no_grad():
        its = teacher(input_features=features, decoder_input_ids=ids)
    z, t = mine.logits[0].log_softmax(-1), its.logits[0].log_softmax(-1)
    ce = -z[torch.arange(len(labels)), labels].sum()
    kl = (t.exp() * (t - z)).sum()
    positions = math.ceil(math.ceil(len(samples) / 160) / 2)
    states, wanted = mine.encoder_last_hidden_state[0], its.encoder_last_hidden_state[0]
    distance = ((states[:positions] - wanted[:positions]) ** 2).mean(-1).sum()
    return ce, kl, distance, len(labels), positions


@pytest.mark.parametrize("encoder_weight", [0.0, 0.7])
@pytest.mark.parametrize("full", [[], [1, 4]], ids=["own", "mixed"])
def test_loss_and_gradient_are_those_of_single_rows(make_trainer, encoder_weight, full):
    """A mixed batch of six rows of four contexts, in float64; lambda is 0.8 at the first step."""
    trainer = make_trainer(encoder_weight=encoder_weight)
    rows = noise_rows(SECONDS)
    collate = cutting(trainer.data_collator, trainer.args)
    batch = collate([{**row, "full_length": index in full} for index, row in enumerate(rows)])
    student = trainer.model.double().train()
    trainer.teacher_model.double()
    stock_teacher = copy.deepcopy(trainer.teacher_model).eval()
    loss = trainer.compute_loss(student, {**batch, "input_features": batch["input_features"].double()})
    loss.backward()

    totals = [0.0] * 5
    stocks = []
    for index, (row, length) in enumerate(zip(rows, SECONDS, strict=True)):
        frames = 100 * min(WINDOW_SECONDS, 99 if index in full else math.ceil(round(length + 0.5, 6)))
        stocks.append(cut_whisper(student, frames))
        config = student.config
        terms = row_terms(stocks[-1], stock_teacher, row, frames, config.pad_token_id, config.decoder_start_token_id)
        totals = [total + term for total, term in zip(totals, terms, strict=True)]
    ce, kl, distance, tokens, positions = totals
    expected = (0.2 * ce + 0.8 * kl) / tokens + encoder_weight * distance / positions
    expected.backward()
    # The features are float32 on both sides, and continued ones differ in their last bits.
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    grads = [dict(stock.named_parameters()) for stock in stocks]
    for name, weight in student.named_parameters():
        if not weight.requires_grad:
            continue
        summed = torch.zeros_like(weight)
        for stock in grads:
            summed[: len(stock[name])] += stock[name].grad
        torch.testing.assert_close(weight.grad, summed, rtol=1e-5, atol=1e-6 * float(summed.abs().max()), msg=name)
    if encoder_weight:
        trainer._end_step()
        assert trainer._encoder_distance.take(lambda value: value)["encoder_mse"] == pytest.approx(
            float(distance.detach() / positions), rel=1e-5
        )


def test_what_teacher_student_and_self_teacher_hear(make_trainer):
    """The teacher the padded window, the others the rows' own lengths, at every step."""
    trainer = make_trainer(mode="joint", full_length_probability=0.0, per_device_train_batch_size=6, max_steps=3)
    heard = []
    for encoder in (trainer.model.model.encoder, trainer.teacher_model.model.encoder):
        # The self-teacher is a copy of the student, hook and all.
        encoder.conv1.register_forward_pre_hook(lambda module, args: heard.append((module, args[0].detach().clone())))
    trainer.train()

    def of(model):
        return [features for module, features in heard if module is model.model.encoder.conv1]

    groups = [100, 200, 300, 400]
    assert sorted(x.shape[-1] for x in of(trainer.model)) == sorted(3 * groups)
    assert [tuple(x.shape) for x in of(trainer.teacher_model)] == [(6, 80, 400)] * 3
    assert sorted(x.shape[-1] for x in of(trainer.self_teacher.model)) == sorted(2 * groups)
    extractor = WhisperFeatureExtractor(chunk_length=WINDOW_SECONDS)
    samples = [row["audio"]["array"] for row in noise_rows(SECONDS)]
    stock = extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features
    for row in of(trainer.teacher_model)[0]:
        assert min((row - other).abs().max() for other in stock) < 1e-6


def test_a_teacher_of_true_length_hears_the_window_too(make_trainer, demo_tokenizer):
    """While it teaches, and when its encoder alone is compared."""
    teacher = FastWhisperForConditionalGeneration.from_teacher(tiny_whisper(demo_tokenizer, seconds=WINDOW_SECONDS))
    teacher.config.true_length = True
    trainer = make_trainer(teacher=teacher, encoder_weight=0.1, teacher_decay_end=0.5, max_steps=4)
    widths = []
    teacher.model.encoder.conv1.register_forward_pre_hook(lambda module, args: widths.append(args[0].shape[-1]))
    trainer.train()
    assert widths == [400] * 4


def test_without_margin_the_teacher_still_hears_the_window(make_trainer):
    """A clip that fills its context to the last sample: no frame of it is padding."""
    trainer = make_trainer(seconds=[1.0, 2.0], true_length_margin=0.0, full_length_probability=0.0, max_steps=1)
    heard = []
    for encoder in (trainer.model.model.encoder, trainer.teacher_model.model.encoder):
        encoder.conv1.register_forward_pre_hook(lambda module, args: heard.append(args[0].detach().clone()))
    trainer.train()
    teacher = heard[0]
    assert teacher.shape[-1] == 400 and sorted(x.shape[-1] for x in heard[1:]) == [100, 200]
    samples = [row["audio"]["array"] for row in noise_rows([1.0, 2.0])]
    extractor = WhisperFeatureExtractor(chunk_length=WINDOW_SECONDS)
    stock = extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features
    for row in teacher:
        assert min((row - other).abs().max() for other in stock) < 1e-6


def test_spec_augment_is_drawn_over_the_context(make_trainer, demo_tokenizer):
    """Half of the time is masked, within a quarter of the widest row for the shortest one; the teacher hears all."""
    teacher = tiny_whisper(
        demo_tokenizer, seconds=WINDOW_SECONDS, apply_spec_augment=True, mask_time_prob=0.5, mask_time_length=5
    )
    trainer = make_trainer(seconds=[0.3, 3.9], teacher=teacher, full_length_probability=0.0, max_steps=1)
    heard = {}
    for name, model in (("student", trainer.model), ("teacher", trainer.teacher_model)):
        model.model.encoder.conv1.register_forward_pre_hook(
            lambda module, args, name=name: heard.setdefault(name, []).append(args[0].detach().clone())
        )
    trainer.train()
    masked = {x.shape[-1]: float((x == 0).all(1).float().mean()) for x in heard["student"]}
    assert set(masked) == {100, 400} and all(0.2 < share < 0.55 for share in masked.values())
    assert not any((x == 0).all(1).any() for x in heard["teacher"])


@pytest.mark.parametrize("settings", [{"true_length": True}, {"true_length": False, "freeze_encoder": False}], ids=str)
def test_accumulation_changes_nothing(make_trainer, settings):
    """Two epochs of two steps, of unequal lengths, with the distance of the encoders in the loss."""
    seconds = [0.4, 1.4, 2.4, 0.5, 1.3, 3.1, 0.2, 2.2] * 2
    settings = {"encoder_weight": 0.5, "mode": "joint", "teacher_decay_end": 0.5, **settings}
    whole = make_trainer(seconds, "whole", per_device_train_batch_size=8, **settings)
    parts = make_trainer(seconds, "parts", per_device_train_batch_size=1, gradient_accumulation_steps=8, **settings)
    whole.train()
    parts.train()
    assert_same_training(parts, whole, ("loss", "ce", "teacher_kl", "self_kl", "encoder_mse", "grad_norm"))
    for line in (line for line in whole.state.log_history if "loss" in line):
        teacher_weight, self_weight = line["teacher_weight"], line["self_weight"]
        ce_weight = 1 - teacher_weight - self_weight
        parts = ce_weight * line["ce"] + teacher_weight * line["teacher_kl"] + self_weight * line["self_kl"]
        assert line["loss"] == pytest.approx(parts + 0.5 * line["encoder_mse"], rel=1e-5)


def test_the_encoder_is_compared_when_the_teacher_no_longer_teaches(make_trainer):
    trainer = make_trainer(encoder_weight=1.0, teacher_decay_end=0.3, self_weight=0.0, max_steps=4)
    decoder, encoder = [], []
    trainer.teacher_model.model.decoder.register_forward_hook(lambda *_: decoder.append(1))
    trainer.teacher_model.model.encoder.register_forward_hook(lambda *_: encoder.append(1))
    trainer.train()
    assert logged(trainer, "teacher_weight")[-2:] == [0.0, 0.0] and all(logged(trainer, "encoder_mse"))
    assert (len(decoder), len(encoder)) == (2, 4)


def test_speech_positions_alone_count():
    """Worked out by hand: rows of 3 and 4 mel frames have two positions each; the third is not speech."""
    states = torch.zeros(2, 3, 2)
    teacher = torch.zeros(2, 5, 2)
    teacher[0, 0] = torch.tensor([1.0, 3.0])  # mean square 5
    teacher[1, 1] = torch.tensor([2.0, 0.0])  # mean square 2
    teacher[:, 2:] = 100.0
    distance = EncoderDistance(0.5, torch.device("cpu"))
    distance.measure(states, teacher, torch.tensor([3, 4]))
    assert float(distance.term()) == pytest.approx(0.5 * 7 / 4)


# ---- the encoder's learning rate ----


def test_the_encoder_moves_at_its_own_rate(make_trainer):
    """One step of SGD without decay or clipping: the update is the rate times the gradient."""
    settings = {"max_steps": 1, "optim": "sgd", "max_grad_norm": 0.0, "warmup_steps": 0, "learning_rate": 0.1}
    moved = {}
    for rate in (None, 0.01):
        trainer = make_trainer(folder=str(rate), encoder_learning_rate=rate, **settings)
        before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
        trainer.train()
        moved[rate] = {name: weight.detach() - before[name] for name, weight in trainer.model.named_parameters()}
    for name, step in moved[None].items():
        share = 0.1 if ".encoder." in name else 1.0
        torch.testing.assert_close(moved[0.01][name], share * step, rtol=2e-3, atol=1e-6, msg=name)
    assert any(step.abs().max() > 1e-3 for name, step in moved[None].items() if ".encoder." in name)


def test_groups_of_decay_stay_and_the_schedule_is_shared(make_trainer):
    trainer = make_trainer(
        encoder_learning_rate=1e-4, weight_decay=0.1, lr_scheduler_type="linear", max_steps=4, learning_rate=1e-3
    )
    groups = trainer.create_optimizer().param_groups
    named = {id(weight): name for name, weight in trainer.model.named_parameters()}
    of = {named[id(w)]: (g["lr"], g["weight_decay"]) for g in groups for w in g["params"]}
    assert of.keys() == {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    for name, (rate, decay) in of.items():
        assert rate == (1e-4 if ".encoder." in name else 1e-3)
        assert decay == (0.0 if name.endswith("bias") or "norm" in name else 0.1), name
    trainer.create_scheduler(4)
    trainer.lr_scheduler.step()
    assert sorted({group["lr"] for group in groups}) == pytest.approx([0.75e-4, 0.75e-3])
    assert trainer.lr_scheduler.get_last_lr()[0] == pytest.approx(0.75e-3)  # what the log shows


# ---- evaluation, records, refusals ----


def test_evaluation_hears_at_true_length_what_fills_the_window(make_trainer, demo_tokenizer):
    trainer = make_trainer(predict_with_generate=True, max_steps=1, generation_max_length=6)
    trainer.train()
    assert trainer.model.config.true_length and trainer.model.config.true_length_margin == 0.5
    widths = []
    trainer.model.model.encoder.conv1.register_forward_pre_hook(lambda m, args: widths.append(args[0].shape[-1]))
    batches = [batch["input_features"].shape[-1] for batch in trainer.get_eval_dataloader(noise_rows([0.3, 1.2]))]
    metrics = trainer.evaluate(noise_rows([0.3, 1.2]))
    assert batches == [400] and set(widths) == {100, 200} and metrics["eval_loss"] > 0
    stock = [cut_whisper(trainer.model, frames).eval() for frames in (100, 200)]
    terms = [
        stock_ce(model, row, frames, trainer.model.config.decoder_start_token_id)
        for model, row, frames in zip(stock, noise_rows([0.3, 1.2]), (100, 200), strict=True)
    ]
    expected = sum(float(ce) for ce, _ in terms) / sum(tokens for _, tokens in terms)
    assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-4)


@torch.no_grad()
def stock_ce(model, row, frames, start):
    extractor = WhisperFeatureExtractor(chunk_length=WINDOW_SECONDS)
    features = extractor(row["audio"]["array"], sampling_rate=16_000, return_tensors="pt").input_features.double()
    labels = torch.tensor(row["labels"])
    ids = torch.cat([torch.tensor([start]), labels[:-1]])[None]
    logits = model(input_features=features[..., :frames], decoder_input_ids=ids).logits[0].log_softmax(-1)
    return -logits[torch.arange(len(labels)), labels].sum(), len(labels)


def test_a_frozen_encoder_of_true_length_goes_on(make_trainer, demo_tokenizer):
    """It runs once for student and self-teacher, at the rows' lengths; the teacher hears the window."""
    teacher = tiny_whisper(demo_tokenizer, seconds=WINDOW_SECONDS)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    student.config.true_length = True
    # Without clipping, which counts the gradient of weights that do not move.
    settings = {"teacher": teacher, "mode": "joint", "full_length_probability": 0.0, "max_grad_norm": 0.0}
    frozen = make_trainer(folder="frozen", student=copy.deepcopy(student), freeze_encoder=True, **settings)
    assert not frozen._encoder_is_shared
    calls = []
    frozen.model.model.encoder.register_forward_hook(lambda *_: calls.append(1))
    frozen.train()
    # The same with an encoder that could move and does not.
    still = make_trainer(folder="still", student=student, encoder_learning_rate=0.0, **settings)
    still.train()
    assert len(calls) == 4 and logged(frozen) == pytest.approx(logged(still), rel=1e-5)


def test_lora_at_true_length(make_trainer, demo_tokenizer):
    teacher = tiny_whisper(demo_tokenizer, seconds=WINDOW_SECONDS)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    student = get_peft_model(student, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    trainer = make_trainer(student=student, teacher=teacher, encoder_weight=0.1, encoder_learning_rate=0.1)
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, weight in trainer.model.named_parameters() if not weight.equal(before[name])}
    assert any(".encoder." in name for name in moved) and all("lora_" in name for name in moved)
    assert student.get_base_model().config.true_length


def refusal(build, **settings):
    with pytest.raises(InputError) as error:
        build(**settings)
    return str(error.value)


def test_refusals(make_trainer, demo_tokenizer):
    teacher = tiny_whisper(demo_tokenizer, seconds=WINDOW_SECONDS)
    assert "set freeze_encoder to false" in refusal(make_trainer, freeze_encoder=True)
    for name in ("encoder_weight", "encoder_learning_rate"):
        said = refusal(make_trainer, true_length=False, **{name: 0.1})
        assert said == f"{name}=0.1 changes nothing on a frozen encoder: set freeze_encoder to false"
    stock = tiny_whisper(demo_tokenizer, seconds=WINDOW_SECONDS, decoder_layers=2)
    assert "not WhisperForConditionalGeneration" in refusal(make_trainer, student=stock)
    trained = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    trained.config.true_length = True
    assert "trained at true length" in refusal(make_trainer, student=trained, true_length=False)
    wide = tiny_whisper(demo_tokenizer, seconds=WINDOW_SECONDS, d_model=64)
    narrow = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    assert "64 (teacher) against 32 (student)" in refusal(
        make_trainer, student=narrow, teacher=wide, encoder_weight=0.1
    )
    for setting, value in (
        ("true_length_margin", -1.0),
        ("encoder_weight", -0.1),
        ("full_length_probability", 1.1),
        ("encoder_learning_rate", -1e-5),
        ("encoder_weight", math.nan),
    ):
        assert f"{setting}" in refusal(make_trainer, **{setting: value})


def test_another_collator_is_refused(make_trainer):
    trainer = make_trainer()
    models = {"model": trainer.model, "teacher_model": trainer.teacher_model}
    with pytest.raises(InputError, match="true_length needs a SpeechCollator"):
        type(trainer)(args=trainer.args, data_collator=list, train_dataset=make_rows(4, 100), **models)


def test_the_encoder_is_frozen_unless_at_true_length(make_trainer):
    for settings, frozen in (
        ({"true_length": False}, True),
        ({"true_length": False, "freeze_encoder": False}, False),
        ({"true_length": True}, False),
    ):
        trainer = make_trainer(**settings)
        assert trainer.args.freeze_encoder == frozen == trainer._encoder_is_frozen


def test_prepared_windows_are_cut_as_the_model_cuts_them(make_trainer, demo_tokenizer):
    extractor = demo_processor(demo_tokenizer, seconds=WINDOW_SECONDS).feature_extractor
    rows = noise_rows(SECONDS)
    prepared = extractor([row["audio"]["array"] for row in rows], sampling_rate=16_000, return_tensors="np")
    collate = SpeechCollator(
        demo_processor(demo_tokenizer, seconds=WINDOW_SECONDS), true_length=True, full_length_probability=0.0
    )
    trainer = make_trainer()
    features = [{**row, "input_features": f} for row, f in zip(rows, prepared.input_features, strict=True)]
    batch = collate(features)
    found = trainer.model.model.encoder.contexts(torch.tensor(prepared.input_features))
    assert batch["context_frames"].tolist() == found == collate(rows)["context_frames"].tolist()
    assert np.allclose(batch["input_features"], collate(rows)["input_features"], atol=1e-6)

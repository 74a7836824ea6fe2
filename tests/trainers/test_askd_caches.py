"""A training with caches is the training without: loss, gradients and log, and the models do not run again."""

import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load, load_file
from transformers.models.whisper.modeling_whisper import WhisperDecoder, WhisperEncoder

from fastwhisper import ASKDTrainer, ASKDTrainingArguments, FastWhisperForConditionalGeneration
from fastwhisper.data.audio import load_audio
from fastwhisper.data.collator import SpeechCollator
from fastwhisper.data.row_store import RowStore
from fastwhisper.errors import InputError
from fastwhisper.modeling.true_length_whisper import TrueLengthEncoder
from fastwhisper.trainers.askd_caches import ASKDCaches, encoder_states
from fastwhisper.transcription.lazy_whisper import LazyWhisper
from fastwhisper.transcription.teacher_states import TeacherStates

from ..recordings import noise_dataset, save_checkpoint, tiny_processor, write_noise
from ..tiny_models import tiny_whisper
from .conftest import assert_same_training, logged

TEXTS = ["turn on the lamp", "never mind", "yes please", "turn off the fan", "good night", "open the door now please"]
KEYS = ("loss", "grad_norm", "ce", "teacher_kl", "self_kl", "teacher_weight", "self_weight")
ARMS = [
    {},
    {"mode": "joint", "temperature": 2.0},
    {"schedule": "gap", "gap_decay": 0.5},
    {"schedule": "constant", "token_gate": True},
    {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 1, "mode": "joint", "self_teacher": "ema"},
]
BOTH = [{"freeze_encoder": False}, {"freeze_encoder": True}]


@pytest.fixture(scope="module")
def teacher_folder(demo_tokenizer, tmp_path_factory):
    return save_checkpoint(tiny_whisper(demo_tokenizer), demo_tokenizer, tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def rows(tmp_path):
    dataset = noise_dataset(tmp_path / "speech", TEXTS)
    return dataset.add_column("previous_text", [None, "so", None, "well then", "please", None])


@pytest.fixture
def train(demo_tokenizer, teacher_folder, rows, tmp_path):
    """Train a fresh student, with caches of these folders or else with a `teacher_model`; returns the trainer."""

    def run(
        teacher_cache=None, encoder_cache=None, dtype=torch.float32, teacher=teacher_folder, dataset=rows,
        student=None, resume=None, **settings,
    ):  # fmt: skip
        processor = tiny_processor(demo_tokenizer)
        if student is None:
            student = FastWhisperForConditionalGeneration.from_teacher(teacher_folder, decoder_layers=2)
        args = ASKDTrainingArguments(
            output_dir=str(tmp_path / settings.pop("folder", "run")),
            **{
                "per_device_train_batch_size": 3, "max_steps": 4, "logging_steps": 1, "save_strategy": "no",
                "report_to": "none", "learning_rate": 1e-3, "use_cpu": True, "disable_tqdm": True, "seed": 0,
                "remove_unused_columns": False, "dataloader_pin_memory": False, **settings,
            },
        )  # fmt: skip
        if args.freeze_encoder:
            student.freeze_encoder()
        caches = ASKDCaches()
        extractor = processor.feature_extractor
        if teacher_cache:
            lazy = LazyWhisper.of_checkpoint(teacher)
            caches.teacher = TeacherStates.of(lazy, RowStore(tmp_path / teacher_cache), extractor, dtype)
        if encoder_cache:
            caches.encoder = encoder_states(student, RowStore(tmp_path / encoder_cache), extractor, dtype)
        trainer = ASKDTrainer(
            model=student,
            teacher_model=None if teacher_cache else LazyWhisper.of_checkpoint(teacher)._load(),
            caches=caches,
            args=args,
            train_dataset=dataset,
            data_collator=SpeechCollator(
                processor, language="en", prompt_probability=0.7, max_target_positions=64,
                pad_token_id=student.config.pad_token_id,
            ),
            processing_class=processor,
            teacher_processing_class=processor,
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return run


def assert_same(mine, other, keys=KEYS):
    assert_same_training(mine, other, keys, rel=1e-6, abs=1e-6)


@pytest.fixture
def no_teacher(monkeypatch):
    """From now on a decoder of four layers, and any encoder but those allowed, raises where it is run."""

    def forbid(encoders=True):
        forward = WhisperDecoder.forward

        def decoder(self, *args, **kwargs):
            assert len(self.layers) != 4, "the teacher's decoder ran"
            return forward(self, *args, **kwargs)

        monkeypatch.setattr(WhisperDecoder, "forward", decoder)
        if encoders:
            for encoder in (WhisperEncoder, TrueLengthEncoder):
                monkeypatch.setattr(encoder, "forward", lambda self, *a, **k: pytest.fail("an encoder ran"))

    return forbid


@pytest.mark.parametrize("freeze", BOTH, ids=str)
@pytest.mark.parametrize("arm", ARMS, ids=str)
def test_a_float32_cache_changes_neither_loss_nor_gradients_nor_log(train, arm, freeze, no_teacher):
    settings = {**freeze, **arm}
    plain = train(folder="plain", **settings)
    encoder = "encoder" if freeze["freeze_encoder"] else None
    first = train("teacher", encoder, folder="first", **settings)
    assert_same(first, plain)
    assert first._caches.computed == {"teacher": 6, "encoder": 6 if encoder else 0}
    no_teacher(encoders=bool(encoder))
    second = train("teacher", encoder, folder="second", **settings)
    assert_same(second, plain)
    assert second._caches.computed == {"teacher": 0, "encoder": 0} and second._caches.teacher.teacher.model is None


def test_a_run_with_other_settings_never_runs_the_teacher(train, no_teacher):
    train("teacher", "encoder", max_steps=2)
    no_teacher()
    trainer = train(
        "teacher", "encoder", folder="other", temperature=3.0, schedule="gap", per_device_train_batch_size=2
    )
    assert all(weight > 0 for weight in logged(trainer, "teacher_weight")[:2])
    assert trainer._caches.computed == {"teacher": 0, "encoder": 0}


def test_half_precision_is_close(train):
    """States and encoder output of three decimals: the loss moves in the fourth."""
    plain = train(folder="plain")
    for dtype, tolerance in ((torch.float16, 2e-3), (torch.bfloat16, 2e-2)):
        name = str(dtype)
        cached = train(f"t-{name}", f"e-{name}", dtype=dtype, folder=name)
        again = train(f"t-{name}", f"e-{name}", dtype=dtype, folder=f"{name}-again")
        for key in ("loss", "ce", "teacher_kl"):
            assert logged(cached, key) == pytest.approx(logged(plain, key), rel=tolerance), key
            # What is computed is rounded as what is read: epochs and runs do not differ.
            assert logged(again, key) == logged(cached, key), key
        assert logged(cached) != logged(plain)


def test_precisions_do_not_read_each_other(train):
    train("teacher", dtype=torch.float16)
    assert train("teacher", dtype=torch.float32, folder="other")._caches.computed["teacher"] == 6


def test_what_has_changed_is_computed_again(train, rows, demo_tokenizer, tmp_path):
    train("teacher", "encoder")

    def computed(folder, **changed):
        return tuple(train("teacher", "encoder", folder=folder, **changed)._caches.computed.values())

    assert computed("same") == (0, 0)
    shutil.copytree(tmp_path / "speech", tmp_path / "moved")
    moved = [{"path": path["path"].replace("speech", "moved"), "bytes": None} for path in rows["audio"][:]]
    assert computed("moved", dataset=rows.remove_columns("audio").add_column("audio", moved)) == (0, 0)
    texts = ["turn on the fan", *rows["text"][1:]]
    assert computed("text", dataset=rows.remove_columns("text").add_column("text", texts)) == (1, 0)
    write_noise(tmp_path / "speech" / "2.wav", 0.9, seed=99)
    assert computed("audio") == (1, 1)

    other = tiny_whisper(demo_tokenizer)
    other.model.decoder.layers[2].fc1.weight.data[0, 0] += 1e-4
    folder = save_checkpoint(other, demo_tokenizer, tmp_path / "other teacher")
    assert computed("weights", teacher=folder) == (6, 0)
    student = FastWhisperForConditionalGeneration.from_teacher(other, decoder_layers=2)
    student.model.encoder.conv1.weight.data[0, 0, 0] += 1e-4
    assert computed("student", student=student) == (0, 6)


def test_a_damaged_entry_is_counted_and_computed_again(train, tmp_path):
    whole = train("teacher", "encoder")
    for cache in ("teacher", "encoder"):
        path = sorted((tmp_path / cache).glob("*/*.safetensors"))[1]
        content = bytearray(path.read_bytes())
        content[-3] ^= 4
        path.write_bytes(content)
    again = train("teacher", "encoder", folder="again")
    assert_same(again, whole)
    assert again._caches.computed == {"teacher": 1, "encoder": 1} and again._caches.damaged == {
        "teacher": 1,
        "encoder": 1,
    }
    assert train("teacher", "encoder", folder="third")._caches.damaged == {"teacher": 0, "encoder": 0}


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_is_read_once_the_weight_is_zero(train, tmp_path, monkeypatch, workers):
    never = train("teacher", teacher_weight=0.0, self_weight=0.0)
    assert RowStore(tmp_path / "teacher").size()[0] == 0 and never._caches.computed["teacher"] == 0
    shutil.rmtree(tmp_path / "teacher")
    trainer = train("teacher", max_steps=10, folder="decay", dataloader_num_workers=workers)
    assert logged(trainer, "teacher_weight")[6:] == [pytest.approx(0.8 / 7, rel=0.1), 0, 0, 0]
    assert trainer._caches.teacher.teacher.model is None  # let go
    reads = []
    get = RowStore.get
    monkeypatch.setattr(RowStore, "get", lambda self, key: reads.append(key) or get(self, key))
    train("teacher", max_steps=20, folder="again")
    # 14 steps with a teacher; the loader is a batch ahead.
    assert 14 * 3 <= len(reads) <= 16 * 3


def test_a_loader_with_processes_reads_the_same(train):
    one = train("teacher", "encoder", dtype=torch.float16)
    two = train("teacher", "encoder", dtype=torch.float16, folder="two", dataloader_num_workers=2)
    assert logged(one) == logged(two) and two._caches.computed == {"teacher": 0, "encoder": 0}


def test_no_features_are_made_where_all_is_there(train, monkeypatch):
    train("teacher", "encoder")
    monkeypatch.setattr(SpeechCollator, "_features", lambda *_: pytest.fail("features"))
    train("teacher", "encoder", folder="again")
    with pytest.raises(BaseException, match="features"):
        train("teacher", folder="encoder runs")


def test_resumed_is_the_same_run(train, tmp_path):
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "mode": "joint", "dtype": torch.float16}
    whole = train("teacher", "encoder", folder="whole", **settings)
    checkpoint = tmp_path / "whole" / "checkpoint-4"
    resumed = train("teacher", "encoder", folder="resumed", resume=str(checkpoint), **settings)
    assert logged(resumed) == logged(whole)
    for (name, weight), expected in zip(resumed.model.named_parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(weight, expected), name


def test_lora_on_the_decoder(train, teacher_folder):
    def student():
        torch.manual_seed(0)
        model = FastWhisperForConditionalGeneration.from_teacher(teacher_folder, decoder_layers=2)
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
        model.get_base_model().freeze_encoder()
        model.freeze_encoder = lambda: None
        return model

    plain = train(student=student(), folder="plain")
    cached = train("teacher", "encoder", student=student(), folder="cached")
    assert_same(cached, plain)
    # The adapters of the encoder start anew at random in every run, and change nothing.
    torch.manual_seed(1)
    assert train("teacher", "encoder", student=student(), folder="again")._caches.computed["encoder"] == 0


def test_spec_augment_keeps_the_teacher_s_cache_and_masks_the_student(train, teacher_folder, no_teacher):
    def student():
        model = FastWhisperForConditionalGeneration.from_teacher(teacher_folder, decoder_layers=2)
        model.config.apply_spec_augment, model.config.mask_time_prob, model.config.mask_time_length = True, 0.5, 10
        return model

    settings = {"freeze_encoder": False, "max_steps": 2}
    plain = train(student=student(), folder="plain", **settings)
    assert_same(train("teacher", student=student(), folder="first", **settings), plain)
    no_teacher(encoders=False)
    assert_same(train("teacher", student=student(), folder="second", **settings), plain)
    with pytest.raises(InputError, match="SpecAugment masks the student's audio anew every time"):
        train(encoder_cache="encoder", student=student(), folder="refused")


def test_an_encoder_that_is_trained_is_refused(train, teacher_folder):
    with pytest.raises(InputError, match="needs a frozen encoder"):
        train(encoder_cache="encoder", freeze_encoder=False)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher_folder, decoder_layers=2)
    student = get_peft_model(student, LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(InputError, match="needs a frozen encoder"):
        train(encoder_cache="encoder", freeze_encoder=False, student=student)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_bf16_with_caches_of_half_precision(train, dtype):
    """Autocast on a CPU cannot join float16. What is kept is the same whatever the training's precision."""
    train("teacher", "encoder", dtype=dtype, bf16=True)
    kept = train("teacher", "encoder", dtype=dtype, folder="kept")
    assert kept._caches.computed == {"teacher": 0, "encoder": 0}
    assert_same(kept, train("other teacher", "other encoder", dtype=dtype, folder="plain"))


def test_bf16_does_not_change_what_is_kept(train):
    train("teacher", "encoder", bf16=True)
    plain = train(folder="plain")
    kept = train("teacher", "encoder", folder="kept")
    assert kept._caches.computed == {"teacher": 0, "encoder": 0}
    assert_same(kept, plain)


def test_true_length_with_a_trained_encoder(train, no_teacher):
    """The teacher hears whole windows, whatever the student hears."""
    settings = {"true_length": True, "full_length_probability": 0.4, "mode": "joint", "max_steps": 6}
    plain = train(folder="plain", **settings)
    first = train("teacher", folder="first", **settings)
    assert_same(first, plain)
    assert first._caches.computed["teacher"] == 6
    no_teacher(encoders=False)
    assert_same(train("teacher", folder="second", **settings), plain)
    # What is kept is what the teacher hears at 30 s.
    assert train("teacher", folder="third")._caches.computed["teacher"] == 0


@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_true_length_with_a_frozen_encoder(train, teacher_folder, monkeypatch, no_teacher, probability):
    """A student that has true length already: its encoder's output is kept for each length that a row is heard at."""

    def student():
        model = FastWhisperForConditionalGeneration.from_teacher(teacher_folder, decoder_layers=2)
        model.config.true_length = True
        return model

    settings = {"true_length": True, "full_length_probability": probability, "mode": "joint", "max_steps": 6}
    settings |= {"freeze_encoder": True, "per_device_train_batch_size": 4}
    plain = train(student=student(), folder="plain", **settings)
    first = train("teacher", "encoder", student=student(), folder="first", **settings)
    assert_same(first, plain)
    assert first._caches.computed["teacher"] == 6
    assert (6 < first._caches.computed["encoder"] <= 12) if probability else first._caches.computed["encoder"] == 6
    no_teacher()
    monkeypatch.setattr(SpeechCollator, "_features", lambda *_: pytest.fail("features"))
    second = train("teacher", "encoder", student=student(), folder="second", **settings)
    assert_same(second, plain)
    assert second._caches.computed == {"teacher": 0, "encoder": 0}


# ---- the teacher's encoder states ----

COMPARED_KEYS = (*KEYS, "encoder_mse")
COMPARED = {"encoder_weight": 0.5, "freeze_encoder": False, "max_steps": 6}


@pytest.fixture
def encoded(monkeypatch):
    """How many rows each call of the teacher's encoder got."""
    rows = []
    encode = LazyWhisper.encode
    monkeypatch.setattr(LazyWhisper, "encode", lambda self, x: rows.append(len(x)) or encode(self, x))
    return rows


@pytest.mark.parametrize(
    "arm",
    [
        {},
        {"true_length": True, "full_length_probability": 0.4, "freeze_encoder": None},
        {"teacher_decay_end": 0.4, "mode": "joint"},
        {"teacher_weight": 0.0, "self_weight": 0.0},
        {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 1, "true_length": True},
    ],
    ids=str,
)
def test_encoder_states_are_kept_as_well(train, arm, no_teacher, encoded):
    settings = {**COMPARED, **arm}
    plain = train(folder="plain", **settings)
    # Encoders that are the same at first have moved apart, and are compared over the speech alone.
    assert logged(plain, "encoder_mse")[-1] > 1e-4
    first = train("teacher", folder="first", **settings)
    assert_same(first, plain, COMPARED_KEYS)
    expected = {"teacher": 0 if arm.get("teacher_weight") == 0.0 else 6, "encoder": 0, "teacher_encoder": 6}
    assert first._caches.computed == expected
    # Once a row, for its decoder states and these.
    assert sum(encoded) == 6 and len(encoded) == 6 // settings.get("per_device_train_batch_size", 3)
    no_teacher(encoders=False)
    second = train("teacher", folder="second", **settings)
    assert_same(second, plain, COMPARED_KEYS)
    assert sum(encoded) == 6 and second._caches.teacher.teacher.model is None
    assert second._caches.computed == {"teacher": 0, "encoder": 0, "teacher_encoder": 0}


def test_a_row_that_lacks_either_is_encoded_once(train, encoded, tmp_path, no_teacher):
    """Rows without decoder states, without encoder states or without both, in a batch of six."""
    settings = {**COMPARED, "per_device_train_batch_size": 6, "max_steps": 1}
    plain = train(folder="plain", **settings)
    train("teacher", folder="decoder", **{**settings, "encoder_weight": 0.0})
    decoder = set((tmp_path / "teacher").glob("*/*.safetensors"))
    assert encoded == [6] and len(decoder) == 6
    first = train("teacher", folder="first", **settings)
    assert encoded == [6, 6] and first._caches.computed == {"teacher": 0, "encoder": 0, "teacher_encoder": 6}
    encoder = set((tmp_path / "teacher").glob("*/*.safetensors")) - decoder
    assert len(encoder) == 6
    keep = {path: path.read_bytes() for path in (*decoder, *encoder)}
    one, other = sorted(decoder), sorted(encoder)
    # Files removed, and rows that are encoded.
    removed = [(one[:2], 2), (other[:2], 2), ([*one, other[0]], 6), ([*one, other[5]], 6), ([*other, one[3]], 6)]
    for gone, rows in removed:
        for path in gone:
            path.unlink()
        again = train("teacher", folder="again", **settings)
        assert_same(again, plain, COMPARED_KEYS)
        missing = {"teacher": len(decoder & set(gone)), "encoder": 0, "teacher_encoder": len(encoder & set(gone))}
        assert again._caches.computed == missing and encoded[-1] == rows
        for path, content in keep.items():
            torch.testing.assert_close(load_file(path)["states"], load(content)["states"], rtol=1e-5, atol=1e-5)
    assert len(encoded) == 2 + len(removed)


def test_encoder_states_in_half_precision_are_close(train):
    plain = train(folder="plain", **COMPARED)
    for folder in ("computed", "read"):
        cached = train("teacher", dtype=torch.float16, folder=folder, **COMPARED)
        assert logged(cached, "encoder_mse") == pytest.approx(logged(plain, "encoder_mse"), rel=2e-2, abs=1e-5)
    assert logged(cached, "encoder_mse") != logged(plain, "encoder_mse")


def test_encoder_states_are_those_of_the_speech_alone(train, tmp_path):
    """Two frames of 10 ms a position, `(positions, 32)` of float32."""
    trainer = train("teacher", teacher_weight=0.0, self_weight=0.0, **COMPARED)
    shapes = [load_file(path)["states"].shape for path in (tmp_path / "teacher").glob("*/*.safetensors")]
    frames = [-(-load_audio(row["audio"]).size // 160) for row in trainer.train_dataset]
    assert sorted(shapes) == sorted((-(-frame // 2), 32) for frame in frames)


def test_encoders_of_other_sizes_are_refused(train, demo_tokenizer, tmp_path):
    other = save_checkpoint(tiny_whisper(demo_tokenizer, d_model=16), demo_tokenizer, tmp_path / "narrow")
    with pytest.raises(InputError, match=r"hidden sizes differ: 16 \(teacher\) against 32 \(student\)"):
        train("teacher", teacher=other, **COMPARED)

"""A published Whisper, which breaks without its padding, begins to hear short clips within a few steps."""

import torch

from fastwhisper import ASKDTrainingArguments, FastWhisperForConditionalGeneration, distill
from fastwhisper.data.collator import SpeechCollator
from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.transcription.checkpoints import load_checkpoint

ROWS = 40


@torch.no_grad()
def loss_of(model, collate, rows):
    """Cross-entropy per token of some rows."""
    batch = collate(rows)
    batch.pop("audio_frames", None)
    return float(model.eval()(**batch).loss)


def test_whisper_tiny_learns_true_length(real_model, real_speech, tmp_path):
    folder = real_speech("speechocean762") / "train"
    teacher, processor = load_checkpoint(str(real_model("whisper-tiny.en")), "cpu")
    untrained = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=4)
    rows = list(load_speech_dataset(folder, limit=ROWS))
    at_30_s = SpeechCollator(processor, full_length_probability=0.0)
    cut = SpeechCollator(processor, true_length=True, full_length_probability=0.0)
    before = loss_of(untrained, cut, rows[:16])
    settings = ASKDTrainingArguments(
        output_dir=str(tmp_path), max_steps=8, per_device_train_batch_size=8, learning_rate=1e-4, logging_steps=1,
        true_length=True, teacher_decay_end=0.5, self_weight=0.0, save_strategy="no", report_to="none", use_cpu=True,
    )  # fmt: skip
    distill(str(real_model("whisper-tiny.en")), folder, settings, limit=ROWS, decoder_layers=4, prompt_probability=0.0)
    student = FastWhisperForConditionalGeneration.from_pretrained(tmp_path)
    after = loss_of(student, cut, rows[:16])
    assert after < 0.8 * before, (before, after)
    # The same from the untouched features of 30 s, which the student cuts itself.
    assert abs(loss_of(student, at_30_s, rows[:4]) - loss_of(student, cut, rows[:4])) < 0.02
    assert student.config.true_length

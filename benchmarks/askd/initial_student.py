"""Where every arm begins: an encoder that hears clips without padding, and some of the teacher's decoder layers.

A stock Whisper whose padding is cut off never stops writing. Its encoder is taught, without labels, to give of a clip
at its own length what it gives of it at 30 s: what falls is the mean squared distance of its states over the speech.
Then it is frozen, so that its output is kept, and a training is that of the decoder alone.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn.utils.rnn import pad_sequence
from transformers import WhisperFeatureExtractor

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.data.audio import load_audio
from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.data.true_length_features import clip_features, sample_frames
from fastwhisper.modeling.true_length_whisper import TrueLengthEncoder, context_frames
from fastwhisper.progress import progress_bar
from fastwhisper.trainers.encoder_distance import speech_positions, squared_distance
from fastwhisper.transcription.checkpoints import load_checkpoint

from .config import ALL, Arm, Config, Initial, Teacher, settings_key
from .lines import Lines
from .place import Place
from .plan import encoder_line_key
from .speech_sets import Clip
from .splits import split
from .teacher_pass import teacher_pass

ENCODER = "encoder.safetensors"
_LOGGED = 10  # values of the curve


def student_folder(config: Config, place: Place, teacher: Teacher, arm: Arm, lines: Lines, own: str = "") -> Path:
    """The folder of the student that an arm starts from.

    Args:
        own (`str`, *optional*): the folder of a teacher of other weights, whose encoder is the same.
    """
    layers = config.initial.decoder_layers if arm.decoder_layers is None else arm.decoder_layers
    encoder = adapted_encoder(config, place, teacher, lines)
    training = config.training
    regularisation = [training.dropout, training.mask_time_probability, training.mask_feature_probability]
    key = settings_key(encoder.name, layers, arm.encoder_layers, regularisation, Path(own).name)[:16]
    with place.made_once("students", key) as folder:
        if folder is not None:
            whisper, processor = load_checkpoint(own or place.model(teacher.name), "cpu", "float32")
            student = FastWhisperForConditionalGeneration.from_teacher(
                whisper,
                whisper.config.decoder_layers if layers == ALL else int(layers),
                arm.encoder_layers,
            )
            if arm.encoder_layers is None:
                student.model.encoder.load_state_dict(load_file(encoder / ENCODER))
            student.config.true_length = True
            student.config.true_length_margin = config.initial.margin
            student.config.dropout = training.dropout
            student.config.apply_spec_augment = masks(config)
            student.config.mask_time_prob = training.mask_time_probability
            student.config.mask_feature_prob = training.mask_feature_probability
            student.save_pretrained(folder)
            processor.save_pretrained(folder)
    return place.work / "students" / key


def masks(config: Config) -> bool:
    """Whether SpecAugment is on, so that the encoder must run in every step."""
    return max(config.training.mask_time_probability, config.training.mask_feature_probability) > 0.0


def adapted_encoder(config: Config, place: Place, teacher: Teacher, lines: Lines) -> Path:
    """The folder with the weights of a teacher's encoder, taught to hear clips at their own length."""
    key = encoder_line_key(config, teacher)
    name = f"{teacher.name.replace('/', '--')}-{key[:16]}"
    with place.made_once("encoders", name) as folder:
        if folder is not None:
            whisper = place.model(teacher.name)
            heard = teacher_pass(config, place, teacher, whisper)
            rows: Any = load_speech_dataset(split(config, place)[0])
            count = min(config.initial.rows or len(rows), len(rows))
            chosen = random.Random(config.initial.seed).sample(range(len(rows)), count)
            clips = [Clip.of_row(rows[index], teacher.language) for index in sorted(chosen)]
            model, processor = load_checkpoint(whisper, place.device, "float32")
            student = FastWhisperForConditionalGeneration.from_teacher(model, 1).model.encoder
            curve = adapt(
                student,  # type: ignore[arg-type]
                processor.feature_extractor,
                clips,
                lambda clip: heard.encoder_states(clip, processor.feature_extractor),
                config.initial,
            )
            weights = {name: weight.cpu().contiguous() for name, weight in student.state_dict().items()}
            save_file(weights, folder / ENCODER)
            lines.append({"kind": "encoder", "key": key, "teacher": teacher.name, "curve": curve})
    return place.work / "encoders" / name


def adapt(
    encoder: TrueLengthEncoder,
    extractor: WhisperFeatureExtractor,
    clips: Sequence[Clip],
    wanted: Callable[[Clip], torch.Tensor],
    settings: Initial,
) -> list[dict[str, float]]:
    """Teach an encoder, in place, to give of clips at their own length what is wanted; the curve of its mean squared
    distance.

    Args:
        wanted (`Callable`): of a clip the states over its speech, `(positions, hidden)`.
    """
    torch.manual_seed(settings.seed)
    encoder.train()
    batches = [batch for epoch in range(settings.epochs) for batch in _batches(clips, extractor, settings, epoch)]
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    warmup = max(1, len(batches) // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (len(batches) - step) / max(1, len(batches) - warmup))
    )
    curve, losses, device = [], list[float](), encoder.conv1.weight.device
    with progress_bar() as bar:
        for step, (batch, context) in enumerate(bar.track(batches, description="teaching true length")):
            features = clip_features([load_audio(clip.audio) for clip in batch], context, extractor).to(device)
            audio = torch.tensor([sample_frames(clip.samples, extractor) for clip in batch])
            its = pad_sequence([wanted(clip) for clip in batch], batch_first=True).to(device)
            heard = encoder(features, true_length=False).last_hidden_state
            loss = squared_distance(heard, its, audio) / speech_positions(audio).sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            losses.append(loss.item())
            if len(losses) >= len(batches) / _LOGGED or step + 1 == len(batches):
                curve.append({"step": step + 1, "squared_distance": sum(losses) / len(losses)})
                losses = []
    return curve


def _batches(
    clips: Sequence[Clip], extractor: WhisperFeatureExtractor, settings: Initial, epoch: int
) -> list[tuple[list[Clip], int]]:
    """Clips in batches of one context, in the order of an epoch, each batch with its context."""
    draws = random.Random(f"{settings.seed} {epoch}")
    grouped: dict[int, list[Clip]] = defaultdict(list)
    for clip in clips:
        frames = sample_frames(clip.samples, extractor)
        grouped[context_frames(frames, settings.margin, extractor.nb_max_frames)].append(clip)
    batches = []
    for context, alike in sorted(grouped.items()):
        draws.shuffle(alike)
        starts = range(0, len(alike), settings.batch_size)
        batches += [(alike[first : first + settings.batch_size], context) for first in starts]
    draws.shuffle(batches)
    return batches

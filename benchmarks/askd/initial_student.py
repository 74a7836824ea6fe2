"""Where every arm begins: an encoder that hears clips without padding, and some of the teacher's decoder layers.

A stock Whisper whose padding is cut off never stops writing. Its encoder is taught, without labels, to give of a clip
at its own length what it gives of it at 30 s: the mean squared distance of its states over the speech. Then it is
frozen, so that what it gives is kept, and a training is that of the decoder alone.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperProcessor

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.data.audio import load_audio
from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.data.true_length_features import sample_frames
from fastwhisper.modeling.true_length_whisper import context_frames
from fastwhisper.modeling.waveforms import SAMPLING_RATE
from fastwhisper.progress import progress_bar
from fastwhisper.trainers.encoder_distance import speech_positions, squared_distance
from fastwhisper.transcription.checkpoints import load_checkpoint

from .config import ALL, Arm, Config, Initial, Teacher, settings_key
from .lines import Lines
from .place import Place
from .splits import split

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
    key = settings_key(teacher.name, config.initial, config.train, config.dev)
    name = f"{teacher.name.replace('/', '--')}-{key[:16]}"
    with place.made_once("encoders", name) as folder:
        if folder is not None:
            weights, curve = adapt(place.model(teacher.name), split(config, place)[0], config.initial, place.device)
            save_file(weights, folder / ENCODER)
            lines.append({"kind": "encoder", "key": key, "teacher": teacher.name, "curve": curve})
    return place.work / "encoders" / name


def adapt(
    teacher: str, rows: Path, settings: Initial, device: str = "cpu"
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """Teach an encoder, without labels, and return its weights and the curve of its mean squared distance."""
    torch.manual_seed(settings.seed)
    whisper, processor = load_checkpoint(teacher, device, "float32")
    student: Any = FastWhisperForConditionalGeneration.from_teacher(whisper, 1).model.encoder.train()
    dataset: Any = load_speech_dataset(rows)
    if settings.rows is not None and settings.rows < len(dataset):
        dataset = dataset.select(sorted(random.Random(settings.seed).sample(range(len(dataset)), settings.rows)))
    clips = [load_audio(row["audio"]) for row in dataset]
    batches = [batch for epoch in range(settings.epochs) for batch in _batches(clips, processor, settings, epoch)]
    optimizer = torch.optim.AdamW(student.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    warmup = max(1, len(batches) // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (len(batches) - step) / max(1, len(batches) - warmup))
    )
    curve, losses = [], list[float]()
    with progress_bar() as bar:
        for step, (indices, context) in enumerate(bar.track(batches, description="teaching true length")):
            features = processor.feature_extractor(
                [clips[index] for index in indices], sampling_rate=SAMPLING_RATE, return_tensors="pt"
            ).input_features.to(device)
            audio = torch.tensor([sample_frames(len(clips[index]), processor.feature_extractor) for index in indices])
            with torch.inference_mode():
                wanted = whisper.model.encoder(features).last_hidden_state
            heard = student(features[..., :context], true_length=False).last_hidden_state
            loss = squared_distance(heard, wanted.clone(), audio) / speech_positions(audio).sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            losses.append(loss.item())
            if len(losses) >= len(batches) / _LOGGED or step + 1 == len(batches):
                curve.append({"step": step + 1, "squared_distance": sum(losses) / len(losses)})
                losses = []
    return {name: weight.cpu().contiguous() for name, weight in student.state_dict().items()}, curve


def _batches(
    clips: list[Any], processor: WhisperProcessor, settings: Initial, epoch: int
) -> Iterator[tuple[list[int], int]]:
    """Clips by index in batches of one context, in the order of an epoch, each batch with its context."""
    draws, extractor = random.Random(f"{settings.seed} {epoch}"), processor.feature_extractor
    grouped: dict[int, list[int]] = defaultdict(list)
    for index, clip in enumerate(clips):
        frames = sample_frames(len(clip), extractor)
        grouped[context_frames(frames, settings.margin, extractor.nb_max_frames)].append(index)
    batches = []
    for context, indices in sorted(grouped.items()):
        draws.shuffle(indices)
        size = settings.batch_size
        batches += [(indices[first : first + size], context) for first in range(0, len(indices), size)]
    draws.shuffle(batches)
    yield from batches

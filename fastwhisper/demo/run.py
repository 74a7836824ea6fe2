"""Post-training on a small scale, offline, in a few minutes on two cores."""

from pathlib import Path

from ..errors import InputError, check_positive, check_seed
from ..synthetic_speech.espeak import SpeechSynthesisError, synthesizer
from ..synthetic_speech.hotel import HELD_OUT_VARIANTS, TRAINING_VARIANTS
from .results import DemoReport, measure
from .speech import RECORDING_SPEAKERS, speak, write_dataset, write_recording
from .training import train

# Ranges of clip numbers.
TRAINING_CLIPS, VALIDATION_CLIPS, HELD_OUT_CLIPS, RECORDING_CLIPS = 40_000_000, 50_000_000, 60_000_000, 70_000_000

TEACHER_LAYERS = 6
# Measured once: `python benchmarks/demo_finetuned.py`, benchmarks/results/demo_finetuned.json.
FINE_TUNED_TEACHER = "What the teacher reaches if it is fine-tuned on the same clips: docs/demo.md."


def run_demo(
    output: str,
    seed: int = 0,
    steps: int = 900,
    clips: int = 2400,
    held_out_clips: int = 160,
    decoder_layers: int = 1,
) -> DemoReport:
    """Take a student of the packaged teacher to a domain that the teacher knows badly, and measure both there.

    Args:
        output (`str`): Output folder; it must be empty or new.
        seed (`int`, *optional*, defaults to 0): Seed of the speech and of the training.
        steps (`int`, *optional*, defaults to 900): Training steps.
        clips (`int`, *optional*, defaults to 2400): Clips to train on.
        held_out_clips (`int`, *optional*, defaults to 160): Clips of held-out voices to measure on.
        decoder_layers (`int`, *optional*, defaults to 1): Decoder layers of the student; of the teacher's 6.

    Raises:
        InputError: if the output folder is not empty, for numbers that are impossible, or if eSpeak NG is missing.
    """
    folder = new_folder(output)
    check_positive(steps=steps, clips=clips, held_out_clips=held_out_clips, decoder_layers=decoder_layers)
    if decoder_layers > TEACHER_LAYERS:
        raise InputError(f"decoder_layers={decoder_layers} is impossible: the packaged teacher has {TEACHER_LAYERS}")
    check_seed(seed)
    try:
        synthesizer()
    except SpeechSynthesisError as error:
        raise InputError(str(error)) from error
    first = seed * 1_000_000
    held_out = speak(HELD_OUT_CLIPS + first, held_out_clips, HELD_OUT_VARIANTS, "held-out voices", several=False)
    guests = speak(RECORDING_CLIPS + first, RECORDING_SPEAKERS, HELD_OUT_VARIANTS, "a recording", several=False)
    validation = speak(VALIDATION_CLIPS + first, 48, TRAINING_VARIANTS, "validation", several=False)
    training = speak(TRAINING_CLIPS + first, clips, TRAINING_VARIANTS, "training")
    write_dataset(folder / "held_out", held_out)
    recording = write_recording(folder / "recording.wav", [clip.samples for clip in guests])
    student, teacher = folder / "student", folder / "teacher"
    train(training, validation, student, teacher, steps, decoder_layers, seed)
    return measure(folder, student, str(teacher), str(folder / "held_out"), recording, device="cpu")


def new_folder(output: str) -> Path:
    """The output folder.

    Raises:
        InputError: if there is something in it.
    """
    folder = Path(output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty: choose another --output, or remove it")
    return folder

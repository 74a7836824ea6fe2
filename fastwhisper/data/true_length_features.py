"""Log-mel features that end a little behind their clip, and go on to the window where the window is heard.

Behind a clip all features of a padded window are the same frame, and a clip's own features do not depend on how far it
is padded. So what is needed of a window of 30 s is computed from a few seconds.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from ..errors import InputError
from ..modeling.true_length_whisper import audio_frames as frames_of_audio
from ..modeling.true_length_whisper import context_frames
from ..modeling.waveforms import SAMPLING_RATE

# At its end the extractor mirrors what it analyses, over half a window of 25 ms: two frames see that, not silence.
_MIRRORED_FRAMES = 2
# Two frames behind a clip see its end; with as many more, the last is padding, and their number stays even.
_TAIL_FRAMES = 4


def pad_to_window(features: torch.Tensor, window: int) -> torch.Tensor:
    """Features whose last frame is padding, `(..., mel bins, frames)`, continued with it to `window` frames."""
    missing = window - features.shape[-1]
    return (
        features
        if missing <= 0
        else torch.cat([features, features[..., -1:].expand(*features.shape[:-1], missing)], -1)
    )


def computed_frames(frames: int, extractor: WhisperFeatureExtractor) -> int:
    """Frames that the extractor must compute so that the first `frames` are those of a padded window."""
    return min(frames + _MIRRORED_FRAMES, extractor.nb_max_frames)


def clip_features(clips: Sequence[np.ndarray], frames: int, extractor: WhisperFeatureExtractor) -> torch.Tensor:
    """The first `frames` features of clips, as the extractor computes them of a padded window.

    Args:
        clips (`Sequence[np.ndarray]`): arrays of samples; none has more frames.
        frames (`int`): at most the window's.
        extractor (`WhisperFeatureExtractor`): its window and mel bins.

    Returns:
        `torch.Tensor`: (clips, mel, frames) float32.
    """
    length = computed_frames(frames, extractor) * extractor.hop_length
    extracted = extractor(list(clips), sampling_rate=SAMPLING_RATE, max_length=length, return_tensors="pt")
    return extracted.input_features[..., :frames]


def sample_frames(samples: int, extractor: WhisperFeatureExtractor) -> int:
    """Mel frames of a clip of so many samples, at most the window's."""
    return min(-(-samples // extractor.hop_length), extractor.nb_max_frames)


def seconds_frames(seconds: float, extractor: WhisperFeatureExtractor) -> int:
    """Mel frames of a clip of so many seconds, at most the window's."""
    return sample_frames(round(seconds * SAMPLING_RATE), extractor)


def prepared_frames(features: torch.Tensor, extractor: WhisperFeatureExtractor) -> int:
    """Mel frames of audio in prepared features of a window, `(mel bins, frames)`, found as the model finds them.

    Raises:
        InputError: for features that do not fill the window.
    """
    if features.dim() != 2 or features.shape[-1] != extractor.nb_max_frames:
        raise InputError(
            f"a row's input_features have the shape {tuple(features.shape)}; those of a window have "
            f"({extractor.feature_size}, {extractor.nb_max_frames}), in which the end of the audio can be found"
        )
    return int(frames_of_audio(features[None])[0])


def features_at_context(
    clips: Sequence[np.ndarray | torch.Tensor],
    full_length: Sequence[bool],
    margin: float,
    extractor: WhisperFeatureExtractor,
) -> dict[str, torch.Tensor]:
    r"""Features of clips as a model of true length hears them in training.

    Args:
        clips (`Sequence[np.ndarray | torch.Tensor]`): arrays of samples, or tensors of prepared features of a window.
        full_length (`Sequence[bool]`): clips that are heard in a whole window.
        margin (`float`): seconds of silence behind the others.
        extractor (`WhisperFeatureExtractor`): its window and mel bins.

    Returns:
        `dict[str, torch.Tensor]`: `input_features` (batch, mel, frames) float32, as long as the longest context, or up
        to four frames longer with next to no margin: their last frame is padding, so that `pad_to_window` gives the
        window; `context_frames` and `audio_frames` (batch,) int64.
    """
    window = extractor.nb_max_frames
    audio = [clip_frames(clip, extractor) for clip in clips]
    own = [context_frames(frames, margin, window) for frames in audio]
    known = [
        min(window, max(context, _even(frames + _TAIL_FRAMES))) for context, frames in zip(own, audio, strict=True)
    ]
    contexts = [window if full else context for full, context in zip(full_length, own, strict=True)]
    width = max(*known, *contexts)
    samples = {index: clip for index, clip in enumerate(clips) if isinstance(clip, np.ndarray)}
    features = {index: clip for index, clip in enumerate(clips) if isinstance(clip, torch.Tensor)}
    if samples:
        extracted = clip_features(list(samples.values()), max(known[index] for index in samples), extractor)
        features.update(zip(samples, extracted, strict=True))
    rows = [pad_to_window(features[index][:, :frames], width) for index, frames in enumerate(known)]
    return {
        "input_features": torch.stack(rows),
        "context_frames": torch.tensor(contexts),
        "audio_frames": torch.tensor(audio),
    }


def clip_frames(clip: np.ndarray | torch.Tensor, extractor: WhisperFeatureExtractor) -> int:
    """Mel frames of audio in an array of samples, or in prepared features of a window."""
    return prepared_frames(clip, extractor) if isinstance(clip, torch.Tensor) else sample_frames(clip.size, extractor)


def _even(frames: int) -> int:
    return frames + frames % 2

"""How many frames of each clip a model is given: 30 s, or its own length for a student that was trained so."""

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from ..modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration
from ..modeling.true_length_whisper import FRAMES_PER_SECOND, context_frames
from .ctranslate2_whisper import AnyWhisper, CTranslate2Whisper

# Whisper's decoder has 15 positions for each second of its window; scripts that take several tokens for a letter need
# more of them for a while.
_TOKENS_A_SECOND = 24
_TOKENS_OF_ANY = 32


def is_true_length(model: AnyWhisper) -> bool:
    """Whether a model is given clips at their own length. The stock class reads 30 s, whatever its config says."""
    takes_any = isinstance(model, FastWhisperForConditionalGeneration | CTranslate2Whisper)
    return takes_any and bool(model.config.true_length)


def context_of(model: AnyWhisper, frames: int) -> int:
    """Feature frames that a model is given of audio with so many: the window, unless it is at true length."""
    window = 2 * model.config.max_source_positions
    return context_frames(frames, model.config.true_length_margin, window) if is_true_length(model) else window


def most_tokens(model: AnyWhisper, context: int) -> int:
    """Label positions that a clip of so many feature frames may take up, its prompt among them.

    A model that repeats itself goes on to the last position of its decoder, hundreds of words for a clip of three
    seconds. At true length it has to stop where nobody could have said more.
    """
    most = model.config.max_target_positions
    if not is_true_length(model):
        return most
    return min(most, _TOKENS_OF_ANY + round(_TOKENS_A_SECOND * context / FRAMES_PER_SECOND))


def context_batches(model: AnyWhisper, contexts: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of at most `batch_size`, the shortest contexts first.

    A batch may join neighbouring lengths where the attention can mask what is behind the shorter ones: a row is then
    computed as it is alone, and a step of the decoder costs about the same for one row as for eight. CTranslate2's
    cannot.
    """
    can_mask = not isinstance(model, CTranslate2Whisper) and model.config._attn_implementation in ("eager", "sdpa")
    batches: list[list[int]] = []
    for index in sorted(range(len(contexts)), key=lambda index: contexts[index]):
        if batches and len(batches[-1]) < batch_size and (can_mask or contexts[batches[-1][-1]] == contexts[index]):
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def stacked(features: Sequence[torch.Tensor]) -> torch.Tensor:
    """Features `(mel, frames)` as one batch, with zeros behind the shorter ones."""
    longest = max(each.shape[-1] for each in features)
    return torch.stack([pad(each, (0, longest - each.shape[-1])) for each in features])

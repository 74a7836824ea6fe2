"""Which cross-attention heads follow the audio: the alignment heads that word timestamps are read from."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor
from transformers.models.whisper.generation_whisper import _dynamic_time_warping, _median_filter

from ..data.label_encoding import LabelEncoder
from ..modeling.waveforms import SAMPLING_RATE
from ..transcription.decoding import window_seconds


@torch.no_grad()
def measure_alignment_heads(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    clips: Sequence[np.ndarray],
    texts: Sequence[str],
    language: str | None = None,
    share_of_best: float = 0.8,
) -> list[list[int]]:
    """Find the decoder's heads whose attention moves along the audio as the text goes on.

    Each clip is decoded with its true text. A head's score is the mean of its attention, standardised over the tokens
    as Whisper's word timestamps do, along its best monotonic path; heads that stay in one place score near 0.

    Args:
        model (`WhisperForConditionalGeneration`): its attention implementation is restored afterwards.
        processor (`WhisperProcessor`): the processor of the model.
        clips (`Sequence[np.ndarray]`): mono samples at 16 kHz that fit the window; a few dozen are enough.
        texts (`Sequence[str]`): what is said in each.
        language (`str`, *optional*): language of the texts.
        share_of_best (`float`, *optional*, defaults to 0.8): heads above this share of the best score are returned.

    Returns:
        `list[list[int]]`: `[layer, head]`, ready for `generation_config.alignment_heads`.
    """
    encoder = LabelEncoder(processor.tokenizer, language)
    start = encoder.start_tokens(language or processor.tokenizer.language, timestamps=False)
    window = window_seconds(model, processor) * SAMPLING_RATE
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    scores = torch.zeros(model.config.decoder_layers, model.config.decoder_attention_heads)
    try:
        for clip, text in zip(clips, texts, strict=True):
            ids = processor.tokenizer(
                f" {text.strip()}", add_special_tokens=False, split_special_tokens=True
            ).input_ids
            features = processor.feature_extractor(
                clip[:window], sampling_rate=SAMPLING_RATE, return_tensors="pt"
            ).input_features
            outputs = model(
                features.to(model.device, model.dtype),
                decoder_input_ids=torch.tensor([[*start, *ids]], device=model.device),
                output_attentions=True,
            )
            frames = max(1, round(min(len(clip), window) / SAMPLING_RATE * 50))
            attentions = torch.stack(outputs.cross_attentions).squeeze(1)[:, :, len(start) :, :frames].float().cpu()
            scores += _path_scores(attentions, model.config.median_filter_width)
    finally:
        model.set_attn_implementation(implementation)
    chosen = torch.nonzero(scores >= share_of_best * scores.max())
    return chosen.tolist()


def _path_scores(attentions: torch.Tensor, filter_width: int) -> torch.Tensor:
    """Score per head, `(layers, heads)`, of the attentions `(layers, heads, tokens, frames)` of one clip."""
    std, mean = torch.std_mean(attentions, dim=-2, keepdim=True, unbiased=False)
    standard = _median_filter((attentions - mean) / (std + 1e-6), filter_width)
    scores = torch.zeros(attentions.shape[:2])
    for layer in range(attentions.shape[0]):
        for head in range(attentions.shape[1]):
            matrix = standard[layer, head].double().numpy()
            tokens, frames = _dynamic_time_warping(-matrix)
            scores[layer, head] = float(matrix[tokens, frames].mean())
    return scores

"""Text and confidences of a model on clips, from what its encoder made of them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import WhisperForConditionalGeneration

from fastwhisper.data.collator import IGNORED, SpeechCollator
from fastwhisper.modeling.waveforms import SAMPLING_RATE
from fastwhisper.transcription.decoding import known_languages
from fastwhisper.transcription.token_kinds import TokenKinds
from fastwhisper.transcription.true_length import most_tokens

from .speech_sets import Clip, Ear

MOST = 448
# A row that never stops makes its whole batch wait: what is longer than fast speech (English has 4 to 6 tokens a
# second) is decoded once more, among themselves.
_FIRST_TOKENS = 16
_TOKENS_A_SECOND = 8


def all_texts(
    ear: Ear,
    clips: Sequence[Clip],
    batch_size: int,
    most: int | None = None,
    beside: Callable[[list[Clip], Any], None] | None = None,
) -> list[str]:
    """Greedy text of every clip, in their order, as `transcribe` gives it.

    Args:
        most (`int`, *optional*): where a text is cut; by default as `transcribe` does.
        beside (`Callable`, *optional*): is called with every batch of clips and the output of the encoder, once.
    """
    most = min(most or MOST, ear.model.config.max_target_positions)
    found: dict[int, str] = {}
    waiting = list(range(len(clips)))
    for again in (False, True):
        unfinished = []
        for places, encoded in ear.batches([clips[index] for index in waiting], batch_size):
            indices = [waiting[place] for place in places]
            batch = [clips[index] for index in indices]
            seconds = max(clip.samples for clip in batch) / SAMPLING_RATE
            last = [min(most, most_tokens(ear.model, ear.context(clip))) for clip in batch]
            first = _FIRST_TOKENS + round(_TOKENS_A_SECOND * seconds)
            limits = last if again else [min(each, first) for each in last]
            for row, (text, is_whole) in enumerate(texts(ear, batch, encoded, limits)):
                found[indices[row]] = text
                unfinished += [indices[row]] if not is_whole and limits[row] < last[row] else []
            if beside is not None and not again:
                beside(batch, encoded)
        waiting = unfinished
    return [found[index] for index in range(len(clips))]


@torch.no_grad()
def texts(ear: Ear, clips: Sequence[Clip], encoded: Any, limits: Sequence[int]) -> list[tuple[str, bool]]:
    """Greedy text of a batch of clips of one language, each up to a number of tokens, and whether it ends before."""
    model: WhisperForConditionalGeneration = ear.model
    options: dict[str, Any] = {}
    if known_languages(model.generation_config):
        options = {"language": clips[0].language, "task": "transcribe"}
    sequences = model.generate(
        encoder_outputs=encoded,
        return_timestamps=False,
        # Behind a time that a model writes all the same `generate` would go on with another window.
        force_unique_generate_call=True,
        max_length=max(limits),
        **options,
    )
    tokenizer = ear.processor.tokenizer
    kinds = TokenKinds(tokenizer)
    cut = [tokens[:limit] for tokens, limit in zip(sequences.tolist(), limits, strict=True)]
    return [(kinds.text(tokens), tokenizer.eos_token_id in tokens) for tokens in cut]


def padded_sequences(
    ear: Ear, clips: Sequence[Clip]
) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor, torch.Tensor]:
    """What the decoder is given of the texts of clips of one language, and what it should answer: of every clip, and
    as two batches `(clips, tokens)` on the model's device."""
    model = ear.model
    collator = SpeechCollator(
        ear.processor,
        language=clips[0].language,
        task="transcribe" if known_languages(model.generation_config) else None,
        max_target_positions=model.config.max_target_positions,
        hears=False,
    )
    sequences = [collator.decoder_sequences({"text": clip.text, "audio": clip.audio}) for clip in clips]
    pad = int(model.config.pad_token_id or 0)
    inputs = pad_sequence([ids for ids, _ in sequences], batch_first=True, padding_value=pad)
    labels = pad_sequence([ids for _, ids in sequences], batch_first=True, padding_value=IGNORED)
    return sequences, inputs.to(model.device), labels.to(model.device)


@torch.no_grad()
def confidences(ear: Ear, clips: Sequence[Clip], encoded: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every text token of the references, the end among them, given those before it: the probability of the token
    that the model holds most probable, and whether it is the right one."""
    model = ear.model
    _, inputs, labels = padded_sequences(ear, clips)
    # The start tokens come behind the end of text in the vocabulary.
    is_text = labels.ne(IGNORED) & labels.le(ear.processor.tokenizer.eos_token_id)
    states = model.model(encoder_outputs=encoded, decoder_input_ids=inputs, use_cache=False).last_hidden_state
    best, chosen = model.proj_out(states[is_text]).float().softmax(dim=-1).max(dim=-1)
    return best.cpu(), chosen.eq(labels[is_text]).cpu()

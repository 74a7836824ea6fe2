"""Whisper's sequential decoding with CTranslate2 in the place of transformers."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutput

from .ctranslate2_whisper import CTranslate2Whisper
from .sequential import Attempt, Fallback, MovingClip, SequentialDecoder, compression_ratio_of, features_of
from .token_kinds import TokenKinds


class CTranslate2Decoder(SequentialDecoder):
    """As [`SequentialDecoder`]: same windows, same fallback, same segments.

    CTranslate2 has Whisper's rules for times itself; it takes every id from the first time on as a time, and what it
    draws at temperatures above 0 depends on what it has drawn before.

    Args:
        model (`CTranslate2Whisper`): loaded.
        kinds (`TokenKinds`): of the model's tokenizer.
        fallback (`Fallback`): temperatures, beams and seed.
        word_times (`bool`): whether pieces say when each of their tokens begins.
    """

    def __init__(self, model: CTranslate2Whisper, kinds: TokenKinds, fallback: Fallback, word_times: bool) -> None:
        self.model: Any = model
        self.kinds = kinds
        self.fallback = fallback
        self.word_times = word_times

    def _encode(self, clips: Sequence[MovingClip], frames: list[int], contexts: list[int]) -> BaseModelOutput:
        encoded: Any = self.model.encode(features_of(self.model, clips, frames, contexts))
        return BaseModelOutput(last_hidden_state=encoded)

    def _silence(self, encoded: BaseModelOutput, clips: Sequence[MovingClip]) -> list[float]:
        return self.model.silence(encoded[0], clips[0].prompt[0])

    def _generate(self, encoded: BaseModelOutput, clips: Sequence[MovingClip], temperature: float) -> list[Attempt]:
        prompts = [clip.prompt for clip in clips]
        found = self.model.generate(encoded[0], prompts, self.fallback.num_beams, temperature, self.fallback.seed)
        vocabulary = self.model.config.vocab_size
        return [
            Attempt(
                each.tokens,
                each.log_probability,
                compression_ratio_of([*each.tokens, *[self.kinds.end_of_text] * each.is_ended], vocabulary),
            )
            for each in found
        ]

    def _token_times(
        self, encoded: BaseModelOutput, prompts: list[list[int]], texts: list[list[int]], frames: list[int]
    ) -> list[list[float]]:
        # One row at a time: a batch must have one prompt, and the languages of its rows may differ.
        states: torch.Tensor = encoded[0]
        return [
            self.model.token_times(states[row : row + 1], prompt, text, length)
            for row, (prompt, text, length) in enumerate(zip(prompts, texts, frames, strict=True))
        ]

"""Whisper's sequential decoding: a window of audio at a time, moved along the times that the model predicts.

transformers' `generate` decodes a whole recording before it answers. Its batches also mix up rows once one of them is
decoded again at a higher temperature: word times fail or belong to another row, and a row may be dropped as silent
instead of another. Here each row keeps its own state, and a window is returned when it is done.

A single recording gets the same text as from `generate` with the same seed, with two exceptions, which are bugs
there: beams are kept after a fallback (`generate` is greedy for the rest of the recording), and words that a fine-tune
added to the vocabulary are not times.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from .ctranslate2_whisper import AnyWhisper
from .recording_features import RecordingFeatures
from .token_kinds import Piece, TimestampRules, TokenKinds, pieces
from .true_length import context_batches, context_of, is_true_length, stacked
from .word_times import token_times

FRAMES_PER_SECOND = 100
# The fallback of Whisper's paper (section 4.5). The threshold of the compression ratio is lower than openai's 2.4,
# because transformers, whose results are to be matched, compresses token ids, not text.
COMPRESSION_RATIO = 1.35
LOG_PROBABILITY = -1.0
NO_SPEECH = 0.6


@dataclass
class MovingClip:
    """A recording that is being decoded.

    Args:
        features (`RecordingFeatures`): of all of it.
        prompt (`list[int]`): ids that the decoder starts with: start of transcript, language, task.
        position (`int`): the frame that the next window begins at.
        random_state (`torch.Tensor`, *optional*): of its fallback's random draws so far.
    """

    features: RecordingFeatures
    prompt: list[int]
    position: int = 0
    random_state: torch.Tensor | None = None

    @property
    def is_done(self) -> bool:
        return self.position >= self.features.frames

    def frames_left(self, most: int) -> int:
        """Frames of the next window: `most`, or what is left."""
        return min(most, self.features.frames - self.position)

    def window(self, frames: int) -> torch.Tensor:
        """Features `(mel, frames)` from the next window on, with silence behind the end of the recording."""
        return self.features.padded_window(self.position, frames)


@dataclass(frozen=True)
class Fallback:
    """When and how a window is decoded again.

    Args:
        temperatures (`Sequence[float]`): tried one after another; at 0 without sampling, with beams.
        num_beams (`int`): beams at temperature 0.
        seed (`int`): for the random draws of every clip.
    """

    temperatures: Sequence[float]
    num_beams: int
    seed: int


@dataclass(frozen=True)
class Attempt:
    """Token ids without the end of text, their mean log probability, and their compression ratio."""

    tokens: list[int]
    log_probability: float
    compression_ratio: float

    @property
    def is_doubtful(self) -> bool:
        return self.compression_ratio > COMPRESSION_RATIO or self.log_probability < LOG_PROBABILITY


class SequentialDecoder:
    """Decodes recordings window by window.

    Args:
        model (`WhisperForConditionalGeneration`): in evaluation mode while it decodes.
        kinds (`TokenKinds`): of the model's tokenizer.
        fallback (`Fallback`): temperatures, beams and seed.
        word_times (`bool`): whether pieces say when each of their tokens begins.
    """

    def __init__(
        self, model: WhisperForConditionalGeneration, kinds: TokenKinds, fallback: Fallback, word_times: bool
    ) -> None:
        self.model: Any = model
        self.kinds = kinds
        self.fallback = fallback
        self.word_times = word_times

    @torch.no_grad()
    def decode_windows(self, clips: Sequence[MovingClip]) -> list[list[Piece]]:
        """Decode the next window of each clip together, and advance the clips; silence has no pieces."""
        frames = [clip.frames_left(2 * self.model.config.max_source_positions) for clip in clips]
        contexts = [context_of(self.model, each) for each in frames]
        found: list[list[Piece]] = [[] for _ in clips]
        for rows in context_batches(self.model, contexts, len(clips)):
            own = [[numbers[row] for row in rows] for numbers in (frames, contexts)]
            for row, decoded in zip(rows, self._decode([clips[row] for row in rows], *own), strict=True):
                found[row] = decoded
        return found

    def _decode(self, clips: Sequence[MovingClip], frames: list[int], contexts: list[int]) -> list[list[Piece]]:
        """The next windows of some clips, of which `frames` are audio, and `contexts` are encoded."""
        encoded = self._encode(clips, frames, contexts)
        found: list[list[Piece]] = []
        moves = []
        for attempt, length in zip(self._attempts(encoded, clips), frames, strict=True):
            decoded, moved = ([], length) if attempt is None else pieces(attempt.tokens, self.kinds, length)
            found.append(decoded)
            moves.append(moved)
        if self.word_times:
            self._add_times(encoded, clips, found, frames)
        for clip, decoded, moved in zip(clips, found, moves, strict=True):
            for piece in decoded:
                piece.delay(clip.position / FRAMES_PER_SECOND)
            clip.position += moved
        return found

    def _encode(self, clips: Sequence[MovingClip], frames: list[int], contexts: list[int]) -> BaseModelOutput:
        given: dict[str, Any] = {"context_frames": contexts} if is_true_length(self.model) else {}
        features = features_of(self.model, clips, frames, contexts)
        return self.model.model.encoder(features.to(self.model.device, self.model.dtype), **given)

    def _add_times(
        self, encoded: BaseModelOutput, clips: Sequence[MovingClip], found: list[list[Piece]], frames: list[int]
    ) -> None:
        texts = [[token for piece in decoded for token in piece.text_tokens] for decoded in found]
        rows = [row for row, text in enumerate(texts) if text]
        if not rows:
            return
        prompts = [clips[row].prompt for row in rows]
        aligned = self._token_times(
            _rows_of(encoded, rows), prompts, [texts[row] for row in rows], [frames[row] for row in rows]
        )
        for row, times in zip(rows, aligned, strict=True):
            begin = 0
            for piece in found[row]:
                end = begin + len(piece.text_tokens)
                # The end of a token is the start of the next.
                piece.times = times[begin : end + 1]
                begin = end

    def _token_times(
        self, encoded: BaseModelOutput, prompts: list[list[int]], texts: list[list[int]], frames: list[int]
    ) -> list[list[float]]:
        return token_times(self.model, encoded, prompts, texts, frames, self.kinds)

    def _attempts(self, encoded: BaseModelOutput, clips: Sequence[MovingClip]) -> list[Attempt | None]:
        """The first attempt at each window that is not doubtful, or the last; `None` for silence."""
        silence = self._silence(encoded, clips)
        attempts: list[Attempt | None] = [None for _ in clips]
        waiting = list(range(len(clips)))
        for temperature in self.fallback.temperatures:
            # The draws for a row must not depend on its neighbours.
            groups = [waiting] if temperature == 0 else [[row] for row in waiting]
            doubtful = []
            for rows in groups:
                tried = self._generate(_rows_of(encoded, rows), [clips[row] for row in rows], temperature)
                for row, attempt in zip(rows, tried, strict=True):
                    silent = silence[row] > NO_SPEECH and attempt.log_probability < LOG_PROBABILITY
                    attempts[row] = None if silent else attempt
                    if attempt.is_doubtful and not silent:
                        doubtful.append(row)
            waiting = doubtful
            if not waiting:
                break
        return attempts

    def _silence(self, encoded: BaseModelOutput, clips: Sequence[MovingClip]) -> list[float]:
        """The probability of `<|nospeech|>`, the id before `<|notimestamps|>`, after the start of transcript."""
        start = torch.tensor([clip.prompt[:1] for clip in clips], device=self.model.device)
        outputs = self.model(encoder_outputs=encoded, decoder_input_ids=start, use_cache=False)
        return outputs.logits[:, 0].float().softmax(dim=-1)[:, self.kinds.no_timestamps - 1].tolist()

    def _generate(self, encoded: BaseModelOutput, clips: Sequence[MovingClip], temperature: float) -> list[Attempt]:
        """Decode windows once; above temperature 0 one at a time, each with its clip's own random draws."""
        prompts = torch.tensor([clip.prompt for clip in clips], device=self.model.device)
        config = self._config(prompts.shape[1], temperature)
        rules = TimestampRules(config, self.kinds, self.model.config.vocab_size, prompts.shape[1])
        with self._draws_of(clips[0]) if temperature else nullcontext():
            # Whisper's own `generate` would start the loop over windows that this class replaces.
            output = GenerationMixin.generate(
                self.model,  # type: ignore[arg-type]
                encoder_outputs=encoded,
                attention_mask=torch.ones(encoded[0].shape[:2], dtype=torch.long, device=self.model.device),
                decoder_input_ids=prompts,
                generation_config=config,
                logits_processor=LogitsProcessorList([rules]),
            )
        return self._read_attempts(output, prompts.shape[1], temperature)

    def _config(self, begin: int, temperature: float) -> GenerationConfig:
        config = deepcopy(self.model.generation_config)
        most = self.model.config.max_target_positions
        if config.max_new_tokens is None:
            config.max_length = min((config.max_length or most) + begin, most)
        else:
            config.max_new_tokens = min(config.max_new_tokens, most - begin)
        config.do_sample = temperature > 0
        config.temperature = temperature or 1.0
        config.num_beams = 1 if temperature else self.fallback.num_beams
        config.return_dict_in_generate = config.output_scores = True
        return config

    def _read_attempts(self, output: Any, begin: int, temperature: float) -> list[Attempt]:
        generated = output.sequences[:, begin:]
        logs = _log_probabilities(output, generated, temperature).cpu()
        attempts = []
        for row, tokens in enumerate(generated.tolist()):
            text = tokens[: tokens.index(self.kinds.end_of_text)] if self.kinds.end_of_text in tokens else tokens
            # The end of text counts where it was written.
            counted = tokens[: len(text) + 1]
            attempts.append(
                Attempt(
                    text,
                    float(logs[row, : len(counted)].sum()) / len(counted),
                    compression_ratio_of(counted, self.model.config.vocab_size),
                )
            )
        return attempts

    @contextmanager
    def _draws_of(self, clip: MovingClip) -> Iterator[None]:
        """Draw from a clip's own sequence of random numbers, which starts at the seed for every clip."""
        device = self.model.device
        on_cuda = device.type == "cuda"
        with torch.random.fork_rng([device] if on_cuda else []):
            if clip.random_state is None:
                torch.manual_seed(self.fallback.seed)
            elif on_cuda:
                torch.cuda.set_rng_state(clip.random_state, device)
            else:
                torch.set_rng_state(clip.random_state)
            yield
            clip.random_state = torch.cuda.get_rng_state(device) if on_cuda else torch.get_rng_state()


def features_of(
    model: AnyWhisper, clips: Sequence[MovingClip], frames: list[int], contexts: list[int]
) -> torch.Tensor:
    """Features `(batch, mel, frames)` of the next windows of some clips, of which `frames` are audio."""
    if is_true_length(model):
        return stacked([clip.window(context) for clip, context in zip(clips, contexts, strict=True)])
    # Zeros behind the audio, as in `generate` and in openai's code, not the features of silence.
    return stacked(
        [
            pad(clip.window(length), (0, context - length))
            for clip, length, context in zip(clips, frames, contexts, strict=True)
        ]
    )


def _rows_of(encoded: BaseModelOutput, rows: list[int]) -> BaseModelOutput:
    # A new one for every call: beam search repeats the rows of the one that it gets.
    chosen: dict[str, Any] = {name: value[rows] for name, value in encoded.items() if isinstance(value, torch.Tensor)}
    return type(encoded)(**chosen)


def _log_probabilities(output: Any, generated: torch.Tensor, temperature: float) -> torch.Tensor:
    """Of each generated token at temperature 1, `(batch, tokens)`."""
    beams = output.get("beam_indices")
    steps = generated.shape[1]
    found = []
    for step, scores in enumerate(output.scores[:steps]):
        rows = torch.arange(len(generated), device=scores.device) if beams is None else beams[:, step].clamp(min=0)
        logs = (scores[rows] * (temperature or 1.0)).log_softmax(dim=-1)
        found.append(logs.gather(1, generated[:, step : step + 1]))
    return torch.cat(found, dim=1)


def compression_ratio_of(tokens: list[int], vocabulary: int) -> float:
    """Bytes of the ids over bytes of their zlib compression, as transformers counts them."""
    width = int(math.log2(vocabulary) / 8) + 1
    raw = b"".join(token.to_bytes(width, "little") for token in tokens)
    return len(raw) / len(zlib.compress(raw))

"""Whisper without its padding: the encoder reads a clip at its own length, not at 30 s.

A stock Whisper breaks without the padding that it was trained with. A student trained for it does not, and its encoder
costs a tenth on a clip of 3 s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import Cache, WhisperConfig
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqModelOutput
from transformers.models.whisper.modeling_whisper import (
    WhisperDecoder,
    WhisperDecoderLayer,
    WhisperEncoder,
    WhisperModel,
    WhisperPreTrainedModel,
)
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

FRAMES_PER_SECOND = 100
# A frame sees 12.5 ms to either side of its own time. The first behind the audio sees up to 10 of its last ms, and so
# always differs from padding. The second sees at most 2.5 of them, at the edge of a Hann window: if it differs, it
# is some 30 dB below the first, which then sees 12.5 ms. Where the first is the last to differ, it is not so far below
# the one before it. The least difference, in features: a quarter of the decades of power.
_FAR_BELOW = 0.7


def context_frames(audio_frames: int, margin: float, window: int) -> int:
    """Mel frames that a clip is encoded with: its own and the margin, rounded up to a second, at most the window.

    Args:
        audio_frames (`int`): mel frames of the clip, 100 a second.
        margin (`float`): seconds of silence kept behind it.
        window (`int`): mel frames of the encoder's window, 3,000 in every Whisper of openai.
    """
    wanted = audio_frames + round(margin * FRAMES_PER_SECOND)
    seconds = max(1, -(-wanted // FRAMES_PER_SECOND))
    return min(seconds * FRAMES_PER_SECOND, window)


def audio_frames(input_features: torch.Tensor, attention_mask: torch.Tensor | None = None) -> list[int]:
    """Mel frames of audio in each row: up to the padding, which is equal in all mel bins, and within the mask.

    Without a mask, audio that is loud to its end may be found to end a frame early or late, and audio that falls to
    80 dB below its loudest frame ends there.

    Args:
        input_features (`torch.Tensor`): log-mel `(batch, mel bins, frames)`.
        attention_mask (`torch.Tensor`, *optional*): `(batch, frames)`, 1 on audio. One of another shape belongs to a
            whole recording of which these are parts, as in `generate`, and is not used.
    """
    frames = input_features.shape[-1]
    loudest = input_features.amax(dim=1)
    differs = loudest != input_features.amin(dim=1)
    places = torch.arange(1, frames + 1, device=input_features.device)
    differing = (differs * places).amax(dim=1)
    last, before = (loudest.gather(1, (differing - back).clamp(min=0)[:, None])[:, 0] for back in (1, 2))
    ends = (differing - 1 - (before - last > _FAR_BELOW).long()).clamp(min=0)
    if attention_mask is not None and attention_mask.shape == differs.shape:
        # Whichever ends first: a part of a recording has the mask of its beginning.
        ends = torch.minimum(ends, attention_mask.to(ends.device).sum(dim=1))
    return ends.tolist()


def embedded(encoder: WhisperEncoder, input_features: torch.Tensor) -> torch.Tensor:
    """What the first layer of a Whisper encoder is given of features of any even length up to the window.

    Args:
        encoder (`WhisperEncoder`): of which only the convolutions and the positions are used.
        input_features (`torch.Tensor`): log-mel `(batch, mel bins, frames)`.
    """
    states = nn.functional.gelu(encoder.conv1(input_features))
    states = nn.functional.gelu(encoder.conv2(states)).transpose(1, 2)
    states = states + encoder.embed_positions.weight[: states.shape[1]]
    return nn.functional.dropout(states, p=encoder.dropout, training=encoder.training)


@dataclass
class TrueLengthEncoderOutput(BaseModelOutput):
    """Encoder states of rows that may differ in length.

    Args:
        last_hidden_state (`torch.Tensor`): `(batch, positions, hidden)`, zeros behind the end of a row.
        positions (`torch.Tensor`, *optional*): `(batch,)`, of each row; `None` where all are equally long.
    """

    positions: torch.Tensor | None = None


class TrueLengthEncoder(WhisperEncoder):
    r"""Whisper's encoder, weight for weight, for features of any even length up to the window."""

    @property
    def window(self) -> int:
        """Mel frames of the window."""
        return self.config.max_source_positions * self.conv1.stride[0] * self.conv2.stride[0]

    def contexts(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        true_length: bool | None = None,
    ) -> list[int]:
        """Mel frames to encode of each row: all of them, unless they fill the window and the model is at true length.

        Args:
            input_features (`torch.Tensor`): log-mel `(batch, mel bins, frames)`.
            attention_mask (`torch.Tensor`, *optional*): `(batch, frames)`; by default padding is looked for.
            true_length (`bool`, *optional*): `config.true_length` by default.

        Raises:
            ValueError: for an odd number of frames, or more than the window has.
        """
        self._check_frames(input_features)
        batch, _, frames = input_features.shape
        if true_length is None:
            true_length = bool(self.config.true_length)
        if not true_length or frames < self.window:
            return [frames] * batch
        margin = self.config.true_length_margin
        return [context_frames(end, margin, self.window) for end in audio_frames(input_features, attention_mask)]

    @can_return_tuple
    def forward(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        context_frames: Sequence[int] | torch.Tensor | None = None,
        true_length: bool | None = None,
        **kwargs,
    ) -> TrueLengthEncoderOutput:
        r"""Encode each row at its own length; a row's states do not depend on the others.

        Args:
            input_features (`torch.Tensor`): log-mel `(batch, mel bins, frames)`.
            attention_mask (`torch.Tensor`, *optional*): `(batch, frames)`, 1 on audio.
            context_frames (`Sequence[int]` or `torch.Tensor`, *optional*): mel frames to encode of each row; by
                default as [`TrueLengthEncoder.contexts`] finds them.
            true_length (`bool`, *optional*): `False` encodes the window whole; `config.true_length` by default.
        """
        if context_frames is None:
            found = self.contexts(input_features, attention_mask, true_length)
        else:
            self._check_frames(input_features)
            found = context_frames.tolist() if isinstance(context_frames, torch.Tensor) else list(context_frames)
        groups: dict[int, list[int]] = {}
        for row, frames in enumerate(found):
            groups.setdefault(frames, []).append(row)
        if len(groups) == 1:
            return TrueLengthEncoderOutput(**self._encode(input_features[..., : found[0]], **kwargs))
        encoded = {frames: self._encode(input_features[rows, :, :frames], **kwargs) for frames, rows in groups.items()}
        stride = self.conv1.stride[0] * self.conv2.stride[0]
        return TrueLengthEncoderOutput(
            **_joined([(rows, encoded[frames]) for frames, rows in groups.items()], len(found)),
            positions=torch.tensor(found, device=input_features.device) // stride,
        )

    def _check_frames(self, input_features: torch.Tensor) -> None:
        frames = input_features.shape[-1]
        if frames % 2 or not 0 < frames <= self.window:
            raise ValueError(
                f"input_features have {frames} frames; the encoder takes an even number of up to {self.window}"
            )

    @merge_with_config_defaults
    @capture_outputs
    def _encode(self, input_features: torch.Tensor, **kwargs) -> BaseModelOutput:
        """As the stock encoder, on equally long rows."""
        states = embedded(self, input_features)
        for layer in self.layers:
            if self.training and self.layerdrop > 0.0 and torch.rand([]) < self.layerdrop:
                continue
            states = layer(states, None, **kwargs)
        return BaseModelOutput(last_hidden_state=self.layer_norm(states))


class TrueLengthDecoderLayer(WhisperDecoderLayer):
    r"""Whisper's decoder layer, which can be kept from attending to positions behind the end of a row."""

    def forward(self, hidden_states, attention_mask=None, encoder_hidden_states=None, **kwargs):  # type: ignore
        """As the stock layer; `cross_attention_mask` `(batch, 1, 1, positions)` is added to the attention scores."""
        # The stock decoder passes `encoder_attention_mask=None`, whatever it is given, but hands on other arguments.
        kwargs["encoder_attention_mask"] = kwargs.pop("cross_attention_mask", None)
        return super().forward(hidden_states, attention_mask, encoder_hidden_states, **kwargs)


class TrueLengthDecoder(WhisperDecoder):
    r"""Whisper's decoder, with layers that mask positions."""

    _no_split_modules = ["TrueLengthDecoderLayer"]

    def __init__(self, config: WhisperConfig):
        super().__init__(config)
        self.layers = nn.ModuleList(TrueLengthDecoderLayer(config, index) for index in range(config.decoder_layers))
        self.post_init()


class TrueLengthModel(WhisperModel):
    r"""Whisper without its head, weight for weight, at the true length of its input."""

    encoder: TrueLengthEncoder
    decoder: TrueLengthDecoder
    _no_split_modules = ["WhisperEncoderLayer", "TrueLengthDecoderLayer"]

    def __init__(self, config: WhisperConfig):
        WhisperPreTrainedModel.__init__(self, config)
        self.encoder = TrueLengthEncoder(config)
        self.decoder = TrueLengthDecoder(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.LongTensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values: Cache | None = None,
        context_frames: Sequence[int] | torch.Tensor | None = None,
        true_length: bool | None = None,
        **kwargs,
    ) -> Seq2SeqModelOutput:
        """As [`WhisperModel.forward`]; `context_frames` and `true_length` as for [`TrueLengthEncoder`]."""
        if encoder_outputs is None and input_features is not None:
            if context_frames is None:
                # Before SpecAugment, whose masks look like padding.
                context_frames = self.encoder.contexts(input_features, attention_mask, true_length)
            if self.training:
                heard = heard_frames(input_features, context_frames, attention_mask)
                input_features = self._mask_input_features(input_features, heard)
            encoder_outputs = self.encoder(input_features, context_frames=context_frames, **kwargs)
        return super().forward(
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            **self.cross_attention(encoder_outputs),
            **kwargs,
        )

    def cross_attention(self, encoder_outputs: BaseModelOutput | tuple | None) -> dict[str, torch.Tensor]:
        """What the decoder needs beside the encoder's states: a mask, if they are not equally long."""
        if isinstance(encoder_outputs, TrueLengthEncoderOutput) and encoder_outputs.positions is not None:
            return {"cross_attention_mask": self._cross_attention_mask(encoder_outputs[0], encoder_outputs.positions)}
        return {}

    def _cross_attention_mask(self, states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The mask `(batch, 1, 1, positions)` of the positions behind the end of a row, as the attention takes it."""
        implementation = self.config._attn_implementation
        places = torch.arange(states.shape[1], device=states.device)
        within = (places < positions.to(states.device)[:, None])[:, None, None]
        if implementation == "sdpa":
            return within
        if implementation == "eager":
            return torch.zeros_like(within, dtype=states.dtype).masked_fill(~within, torch.finfo(states.dtype).min)
        raise ValueError(
            f"attn_implementation={implementation!r} cannot mask clips of different lengths in one batch: use 'sdpa', "
            "or put clips of the same length together"
        )


def heard_frames(
    input_features: torch.Tensor, contexts: Sequence[int] | torch.Tensor, attention_mask: torch.Tensor | None = None
) -> Any:
    """The frames that SpecAugment may mask, `(batch, frames)`."""
    places = torch.arange(input_features.shape[-1], device=input_features.device)
    heard = (places < torch.as_tensor(contexts, device=input_features.device)[:, None]).long()
    return heard if attention_mask is None else heard * attention_mask


def _joined(parts: list[tuple[list[int], BaseModelOutput]], batch: int) -> dict[str, Any]:
    """Outputs of groups of rows as those of one batch, with zeros behind the end of the shorter ones."""
    joined: dict[str, Any] = {}
    for name, first in parts[0][1].items():
        values = [(rows, output[name]) for rows, output in parts]
        if isinstance(first, tuple):  # one tensor of each layer
            layers = ([(rows, value[layer]) for rows, value in values] for layer in range(len(first)))
            joined[name] = tuple(_one_batch(layer, batch) for layer in layers)
        else:
            joined[name] = _one_batch(values, batch)
    return joined


def _one_batch(parts: list[tuple[list[int], torch.Tensor]], batch: int) -> torch.Tensor:
    """States `(rows, positions, hidden)` or attention `(rows, heads, positions, positions)` of all rows."""
    shapes = [tensor.shape[1:] for _, tensor in parts]
    whole = parts[0][1].new_zeros(batch, *map(max, zip(*shapes, strict=True)))
    for (rows, tensor), shape in zip(parts, shapes, strict=True):
        place: Any = (rows, *map(slice, shape))
        whole[place] = tensor
    return whole


__all__ = ["TrueLengthEncoder", "TrueLengthEncoderOutput", "TrueLengthModel", "audio_frames", "context_frames"]

"""A clip at its own length: against a stock Whisper whose window is that short, alone and in any batch."""

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from fastwhisper import FastWhisperConfig, FastWhisperForConditionalGeneration
from fastwhisper.modeling.true_length_whisper import TrueLengthEncoderOutput, audio_frames, context_frames

WINDOW = 600
SETTINGS = {
    "vocab_size": 60, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 80,
    "max_source_positions": WINDOW // 2, "max_target_positions": 24, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 3, "suppress_tokens": None, "begin_suppress_tokens": None,
}  # fmt: skip
PADDING = -0.75


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    model = FastWhisperForConditionalGeneration(FastWhisperConfig(**SETTINGS, true_length=True)).eval()
    # Random weights of the usual size hardly look at the audio.
    for layer in model.model.decoder.layers:
        for weight in (layer.encoder_attn.v_proj.weight, layer.encoder_attn.q_proj.weight):
            torch.nn.init.normal_(weight, std=0.5)
    model.generation_config.update(
        is_multilingual=False, no_timestamps_token_id=58, decoder_start_token_id=3, pad_token_id=0, eos_token_id=2,
        max_length=12, return_timestamps=False,
    )  # fmt: skip
    return model


@pytest.fixture
def ids():
    return torch.randint(4, 58, (4, 5), generator=torch.Generator().manual_seed(1))


def features(*audio: int) -> torch.Tensor:
    """Noise of so many frames in each row, continued with padding to the window."""
    generator = torch.Generator().manual_seed(0)
    batch = torch.full((len(audio), 80, WINDOW), PADDING)
    for row, frames in zip(batch, audio, strict=True):
        # Two frames behind the audio still see it, the second hardly.
        seen = min(frames + 2, WINDOW)
        row[:, :seen] = torch.randn(80, seen, generator=generator)
        row[:, frames + 1 :].clamp_(max=-0.7)
        row[:, frames - 1 : frames + 1].clamp_(min=0.1)
    return batch


def stock_with_window(student, frames: int) -> WhisperForConditionalGeneration:
    """The student's weights in the stock class, with a window of so many frames."""
    config = WhisperConfig(**{**SETTINGS, "max_source_positions": frames // 2})
    stock = WhisperForConditionalGeneration(config).eval()
    weights = student.state_dict()
    positions = "model.encoder.embed_positions.weight"
    stock.load_state_dict({**weights, positions: weights[positions][: frames // 2]})
    return stock


# ---- how much is heard ----


@pytest.mark.parametrize(
    ("audio", "margin", "heard"),
    [
        (0, 0.5, 100), (1, 0.5, 100), (50, 0.5, 100), (51, 0.5, 200), (222, 0.5, 300), (250, 0.5, 300),
        (251, 0.5, 400), (300, 0, 300), (301, 0, 400), (0, 0, 100), (100, 0.25, 200), (2950, 0.5, 3000),
        (2999, 0.5, 3000), (3000, 0.5, 3000), (10, 100.0, 3000),
    ],
)  # fmt: skip
def test_a_clip_is_heard_with_its_margin_up_to_a_whole_second(audio, margin, heard):
    assert context_frames(audio, margin, 3000) == heard


@pytest.mark.parametrize("samples", [400, 8_000, 16_000, 23_999, 24_000, 56_000, 79_921, 480_000])
def test_the_end_of_the_audio_is_found_in_real_features(samples):
    audio = np.random.default_rng(0).normal(size=samples).astype(np.float32)
    found = WhisperFeatureExtractor()(audio, sampling_rate=16_000, return_tensors="pt", return_attention_mask=True)
    by_padding = audio_frames(found.input_features)[0]
    by_mask = audio_frames(found.input_features, found.attention_mask)[0]
    assert by_mask == by_padding or by_mask == by_padding + 1 or samples == 480_000
    assert abs(by_padding - samples / 160) <= 2
    assert context_frames(by_padding, 0.5, 3000) == context_frames(-(-samples // 160), 0.5, 3000)


def off_by(clip):
    """Frames by which the end of a clip is found late, and whether that changes its context."""
    true = -(-len(clip) // 160)
    # Features do not depend on the padding behind the next frames.
    extractor = WhisperFeatureExtractor()
    found = extractor(clip, sampling_rate=16_000, max_length=160 * (true + 8), return_tensors="pt").input_features
    end = audio_frames(found)[0]
    return end - true, context_frames(end, 0.5, 3000) != context_frames(true, 0.5, 3000)


def test_the_end_of_loud_audio_is_found_to_a_frame():
    """Over all remainders of samples in a frame, at the whole seconds that a context is rounded to as well."""
    noise = np.random.default_rng(0).normal(scale=0.1, size=64_000).astype(np.float32)
    offs, moved = zip(*(off_by(noise[:samples]) for samples in range(1, 64_001, 797)), strict=True)
    assert set(offs) <= {-1, 0, 1} and np.mean([off == 0 for off in offs]) > 0.9 and not any(moved)
    # Half a second and the margin fill a context to its last sample.
    at_seconds = [off_by(noise[: 8_000 + past]) for past in range(-160, 161, 20)]
    assert sum(changes for _, changes in at_seconds) <= 1


def test_a_mask_of_another_shape_is_that_of_a_whole_recording():
    batch = features(300, 100)
    assert audio_frames(batch, torch.ones(2, 2 * WINDOW)) == [300, 100]
    assert audio_frames(batch, torch.ones(1, WINDOW)) == [300, 100]
    shorter = (torch.arange(WINDOW) < 250).long().expand(2, -1)
    assert audio_frames(batch, shorter) == [250, 100]


def test_features_that_no_encoder_takes_are_refused(student, ids):
    for frames in (0, 1, 333, WINDOW + 2):
        with pytest.raises(ValueError, match=f"have {frames} frames; the encoder takes an even number of up to 600"):
            student(torch.zeros(4, 80, frames), decoder_input_ids=ids)


def test_a_negative_margin_is_refused():
    with pytest.raises(ValueError, match="true_length_margin=-1"):
        FastWhisperConfig(true_length_margin=-1)


# ---- what is computed ----


@pytest.mark.parametrize("frames", [2, 100, 318, WINDOW])
@torch.no_grad()
def test_short_features_give_what_a_whisper_of_that_window_gives(student, ids, frames):
    batch = torch.randn(4, 80, frames, generator=torch.Generator().manual_seed(2))
    stock = stock_with_window(student, frames)
    expected = stock(batch, decoder_input_ids=ids, output_hidden_states=True)
    found = student(batch, decoder_input_ids=ids, true_length=False, output_hidden_states=True)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-6)
    assert len(found.encoder_hidden_states) == len(expected.encoder_hidden_states)
    for mine, its in zip(found.encoder_hidden_states, expected.encoder_hidden_states, strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-6)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_rows_of_a_batch_are_heard_as_if_alone(student, ids, attention):
    batch = features(120, 600, 240, 130)
    try:
        student.set_attn_implementation(attention)
        found = student(batch, decoder_input_ids=ids, output_hidden_states=True)
    finally:
        student.set_attn_implementation("sdpa")
    for row, frames in enumerate((200, 600, 300, 200)):
        stock = stock_with_window(student, frames)
        expected = stock(batch[row : row + 1, :, :frames], decoder_input_ids=ids[row : row + 1])
        torch.testing.assert_close(found.logits[row], expected.logits[0], rtol=0, atol=1e-5)
        states = found.encoder_last_hidden_state[row]
        torch.testing.assert_close(states[: frames // 2], expected.encoder_last_hidden_state[0], rtol=0, atol=1e-5)
        assert not states[frames // 2 :].any()
        assert [layer.shape for layer in found.encoder_hidden_states] == [(4, 300, 16)] * 3


@torch.no_grad()
def test_the_whole_window_is_heard_when_asked_for(student, ids):
    batch = features(120, 600, 240, 130)
    stock = stock_with_window(student, WINDOW)
    expected = stock(batch, decoder_input_ids=ids).logits
    assert torch.equal(student(batch, decoder_input_ids=ids, true_length=False).logits, expected)
    assert not torch.allclose(student(batch, decoder_input_ids=ids).logits, expected, atol=1e-3)


@torch.no_grad()
def test_contexts_can_be_given(student, ids):
    batch = features(120, 600, 240, 130)
    expected = student(batch, decoder_input_ids=ids)
    for given in ([200, 600, 300, 200], torch.tensor([200, 600, 300, 200])):
        found = student(batch, decoder_input_ids=ids, context_frames=given)
        assert torch.equal(found.logits, expected.logits)


def test_gradients_of_a_batch_are_the_sum_of_its_rows(student, ids):
    batch = features(120, 600, 240, 130)

    def gradients(rows: list[int]) -> list[torch.Tensor]:
        student.zero_grad()
        labels = ids[rows]
        student(batch[rows], labels=labels, num_items_in_batch=ids.numel()).loss.backward()
        return [weight.grad.clone() for weight in student.parameters() if weight.grad is not None]

    together = gradients([0, 1, 2, 3])
    alone = [sum(parts) for parts in zip(*(gradients([row]) for row in range(4)), strict=True)]
    assert len(together) == len(alone) > 40
    for mine, its in zip(together, alone, strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-6)


def test_specaugment_masks_what_is_heard(student, ids):
    seen = []
    hook = student.model.encoder.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    student.config.update({"apply_spec_augment": True, "mask_time_prob": 0.5, "mask_time_length": 10})
    try:
        student.train()
        np.random.seed(0)
        batch = features(120, 120, 120, 120)
        student(batch.clone(), decoder_input_ids=ids)
    finally:
        student.eval()
        student.config.update({"apply_spec_augment": False, "mask_time_prob": 0.05})
        hook.remove()
    (heard,) = seen
    assert heard.shape == (4, 80, 200), "SpecAugment's zeros must not be taken for padding"
    masked = (heard == 0).all(dim=1).float().mean()
    assert 0.2 < masked < 0.6, masked


def test_attention_that_cannot_mask_positions_is_refused(student, ids, monkeypatch):
    monkeypatch.setattr(student.config, "_attn_implementation_internal", "flash_attention_2")
    mixed = TrueLengthEncoderOutput(torch.zeros(4, 300, 16), positions=torch.tensor([100, 300, 150, 100]))
    with pytest.raises(ValueError, match="flash_attention_2' cannot mask clips of different lengths"):
        student(encoder_outputs=mixed, decoder_input_ids=ids)


# ---- generate ----


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": False, "cache_implementation": "static"}])
def test_generate_writes_the_same_alone_and_in_a_batch(student, options):
    batch = features(120, 600, 240, 130)
    with torch.no_grad():
        together = student.generate(batch, **options)
        for row, frames in enumerate((200, 600, 300, 200)):
            alone = student.generate(batch[row : row + 1], **options)[0]
            assert torch.equal(together[row, : len(alone)], alone)
            stock = stock_with_window(student, frames)
            stock.generation_config = student.generation_config
            expected = stock.generate(batch[row : row + 1, :, :frames], **options)[0]
            assert torch.equal(alone, expected)
    assert len({tuple(row.tolist()) for row in together}) >= 3, "the audio must make a difference"


def test_generate_encodes_no_more_than_is_heard(student):
    encoded = []
    hook = student.model.encoder.conv1.register_forward_pre_hook(lambda _, inputs: encoded.append(inputs[0].shape[-1]))
    try:
        with torch.no_grad():
            student.generate(features(120))
            student.generate(features(120)[..., :200])  # cut by the caller, padded by `generate`
            student.generate(features(120), attention_mask=(torch.arange(WINDOW) < 90).long()[None])
            student.generate(features(120), true_length=False)
    finally:
        hook.remove()
    assert encoded == [200, 200, 200, WINDOW]


def test_word_times_are_inside_the_audio(student):
    student.generation_config.alignment_heads = [[0, 0], [1, 1]]
    batch = features(120, 600, 240, 130)
    mask = torch.stack([(torch.arange(WINDOW) < frames).long() for frames in (120, 600, 240, 130)])
    with torch.no_grad():
        found = student.generate(batch, attention_mask=mask, return_token_timestamps=True)
    assert (found["token_timestamps"].max(dim=1).values <= torch.tensor([1.2, 6.0, 2.4, 1.3])).all()
    student.set_attn_implementation("sdpa")

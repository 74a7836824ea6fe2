"""FastSLM: packing of windows, placeholders, exactness on text, options, gradients, families of language models."""

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    OPTConfig,
    PhiConfig,
    Qwen3Config,
    SmolLM3Config,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from fastwhisper import FastSLMConfig, FastSLMForCausalLM, FastSLMModel, FastWhisperConfig, HFQFormerConfig
from fastwhisper.modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration

from ..fastslm_parts import (
    ADAPTER,
    AUDIO_ID,
    MEL_FRAMES,
    QUERIES,
    fresh_tokenizer,
    mask_of,
    prompts,
    tiny_encoder,
    tiny_fastslm,
    tiny_language_model,
    tiny_processor,
    windows,
)
from ..tiny_models import CHECKPOINTING, tiny_whisper


@pytest.fixture(scope="module")
def model():
    return tiny_fastslm()


FAMILIES = [
    pytest.param(Qwen3Config, {"tie_word_embeddings": True}, id="qwen3-tied"),
    pytest.param(Qwen3Config, {"tie_word_embeddings": False}, id="qwen3"),
    pytest.param(LlamaConfig, {}, id="llama"),
    pytest.param(Gemma2Config, {"final_logit_softcapping": 0.5}, id="gemma2"),
    pytest.param(Gemma3TextConfig, {"final_logit_softcapping": 0.5}, id="gemma3"),
    pytest.param(SmolLM3Config, {}, id="smollm3"),
    # Their embeddings have other names: wte, decoder.embed_tokens.
    pytest.param(GPT2Config, {}, id="gpt2"),
    pytest.param(OPTConfig, {"ffn_dim": 64, "word_embed_proj_dim": 48}, id="opt"),
]


@pytest.mark.parametrize(("config_class", "settings"), FAMILIES)
def test_text_alone_gives_the_language_models_own_logits(config_class, settings):
    language_model = tiny_language_model(config_class, **settings)
    ids = torch.tensor([[3, 4, 5, 6], [0, 9, 8, 7]])
    attention_mask = (ids != 0).long()
    expected = language_model(ids, attention_mask=attention_mask).logits
    model = tiny_fastslm(language_model=language_model)
    assert torch.equal(model(ids, attention_mask=attention_mask).logits, expected)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == bool(model.config.tie_word_embeddings)
    audio = model(**prompts(QUERIES), input_features=windows(1))
    assert audio.audio_hidden_states.shape == (QUERIES, 48)


@pytest.mark.parametrize(("config_class", "settings"), FAMILIES)
def test_every_family_answers_the_same_once_it_is_loaded(config_class, settings, tmp_path):
    model = tiny_fastslm(language_model=tiny_language_model(config_class, **settings))
    model.save_pretrained(tmp_path)
    loaded = FastSLMForCausalLM.from_pretrained(tmp_path)
    inputs = {**prompts(QUERIES), "input_features": windows(1)}
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == bool(model.config.tie_word_embeddings)


@pytest.mark.parametrize(
    ("config_class", "settings", "message"),
    [
        # Its bias would be lost in saving, and with it the right answers.
        (PhiConfig, {"num_key_value_heads": 4}, "head has a bias"),
        (OPTConfig, {"ffn_dim": 64, "word_embed_proj_dim": 24}, "embeddings have a width of 24"),
        (MambaConfig, {}, "no cache of keys and values"),
    ],
)
def test_language_models_that_cannot_be_held_whole_are_refused(config_class, settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_fastslm(language_model=tiny_language_model(config_class, **settings))


def test_speech_tokens_take_the_places_of_placeholders(model):
    inputs = prompts(2 * QUERIES, QUERIES)
    tokens = model.get_audio_features(windows(3)).pooler_output
    assert tokens.shape == (3 * QUERIES, 48)
    embeddings = model.get_input_embeddings()(inputs["input_ids"].masked_fill(inputs["input_ids"] == AUDIO_ID, 0))
    embeddings[0, 1:11], embeddings[1, 6:11] = tokens[:10], tokens[10:]
    by_hand = model(inputs_embeds=embeddings, attention_mask=inputs["attention_mask"]).logits
    torch.testing.assert_close(model(**inputs, input_features=windows(3)).logits, by_hand)


@pytest.mark.parametrize("counts", [(QUERIES,), (3 * QUERIES,), (2 * QUERIES + 1,), (0,)])
def test_mismatch_names_both_counts(model, counts):
    message = f"{sum(counts)} placeholders.* {2 * QUERIES} speech tokens"
    with pytest.raises(ValueError, match=message):
        model(**prompts(*counts), input_features=windows(2))
    with pytest.raises(ValueError, match="placeholders"):
        model.generate(**prompts(*counts), input_features=windows(2), max_new_tokens=2)


def test_placeholders_without_audio(model):
    with pytest.raises(ValueError, match="5 placeholders.* 0 speech tokens"):
        model(**prompts(QUERIES))


@pytest.mark.parametrize("shape", [(1, 79, MEL_FRAMES), (1, 80, MEL_FRAMES - 1), (80, MEL_FRAMES)])
def test_windows_of_another_shape(model, shape):
    with pytest.raises(ValueError, match="80 mel bins x 100 frames"):
        model.get_audio_features(torch.zeros(shape))


@pytest.mark.parametrize("options", [{}, {"mask_padding": True}, {"tokens_follow_length": True, "mask_padding": True}])
@pytest.mark.parametrize("true_length", [False, True])
def test_ragged_batch_equals_one_by_one_for_any_block_size(options, true_length):
    model = tiny_fastslm(options, encoder_true_length=true_length)
    features, mask = windows(7), mask_of(100, 100, 30, 100, 2, 100, 61)
    alone = [model.get_audio_features(features[i : i + 1], mask[i : i + 1]) for i in range(7)]
    counts = torch.cat([one.window_token_counts for one in alone])
    for size in (1, 2, 3, 7, 50):
        model.config.encoder_window_batch = size
        packed = model.get_audio_features(features, mask)
        assert torch.equal(packed.window_token_counts, counts)
        one_by_one = torch.cat([one.pooler_output for one in alone])
        torch.testing.assert_close(packed.pooler_output, one_by_one, rtol=1e-4, atol=1e-5)


def test_blocks_bound_what_the_encoder_sees(model, monkeypatch):
    seen, progress = [], []
    forward = type(model.model.audio_tower).forward

    def watched(self, input_features, **kwargs):
        seen.append(len(input_features))
        return forward(self, input_features, **kwargs)

    monkeypatch.setattr(type(model.model.audio_tower), "forward", watched)
    model.config.encoder_window_batch = 4
    model.get_audio_features(windows(11), progress=lambda done, total: progress.append((done, total)))
    assert seen == [4, 4, 3]
    assert progress == [(4, 11), (8, 11), (11, 11)]


def test_encoder_is_whispers_own(model):
    encoder = tiny_encoder().get_encoder()
    with torch.no_grad():
        assert torch.equal(model.model.audio_tower(windows(2)), encoder(windows(2)).last_hidden_state)
    assert isinstance(model.model.audio_tower, WhisperEncoder)


def test_true_length_ignores_what_is_behind_the_audio():
    model = tiny_fastslm({"mask_padding": True}, encoder_true_length=True)
    whole = tiny_fastslm({"mask_padding": True})
    whole.load_state_dict(model.state_dict())
    long = tiny_encoder().config.max_source_positions
    features = windows(1)
    assert torch.equal(
        model.get_audio_features(features, mask_of(2 * long)).pooler_output,
        whole.get_audio_features(features, mask_of(2 * long)).pooler_output,
    )


def test_true_length_feeds_the_encoder_less():
    config = FastSLMConfig(
        audio_config={
            "model_type": "whisper", "d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 4,
            "encoder_ffn_dim": 32, "num_mel_bins": 80, "max_source_positions": 200,
        },
        text_config=tiny_language_model().config,
        qformer_config={**ADAPTER, "max_source_positions": 200, "mask_padding": True},
        encoder_true_length=True,
    )  # fmt: skip
    model, seen = FastSLMModel(config).eval(), []
    model.audio_tower.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    features = torch.randn(3, 80, 400)
    mask = (torch.arange(400)[None] < torch.tensor([130, 400, 150])[:, None]).long()
    tokens = model.get_audio_features(features, mask).pooler_output
    assert sorted(seen) == [(1, 200, 32), (2, 100, 32)]
    alone = [model.get_audio_features(features[i : i + 1], mask[i : i + 1]).pooler_output for i in range(3)]
    torch.testing.assert_close(tokens, torch.cat(alone))
    features[0, :, 200:], features[2, :, 200:] = 7.0, -7.0
    torch.testing.assert_close(model.get_audio_features(features, mask).pooler_output, tokens)


def true_length_encoder(margin: float, seconds: int = 4) -> FastWhisperForConditionalGeneration:
    torch.manual_seed(0)
    config = FastWhisperConfig(
        vocab_size=60, d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, num_mel_bins=80, init_std=0.2,
        max_source_positions=50 * seconds, pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
        true_length=True, true_length_margin=margin,
    )  # fmt: skip
    return FastWhisperForConditionalGeneration(config).eval()


@pytest.mark.parametrize("from_folder", [False, True])
def test_an_encoder_at_true_length_is_used_so(tmp_path, from_folder):
    student, adapter = true_length_encoder(0.5), {**ADAPTER, "max_source_positions": 200}
    if from_folder:
        student.save_pretrained(tmp_path / "student")
    part = tmp_path / "student" if from_folder else student
    model = FastSLMForCausalLM.from_parts(part, tiny_language_model(), qformer_config=adapter)
    assert model.config.encoder_true_length and model.config.encoder_true_length_margin == 0.5
    off = FastSLMForCausalLM.from_parts(part, tiny_language_model(), adapter, encoder_true_length=False)
    assert (off.config.encoder_true_length, off.config.encoder_true_length_margin) == (False, 0.0)
    model.save_pretrained(tmp_path / "slm")
    loaded = FastSLMForCausalLM.from_pretrained(tmp_path / "slm")
    assert loaded.config.encoder_true_length and loaded.config.encoder_true_length_margin == 0.5


def test_a_plain_encoder_reads_whole_windows(model):
    assert (model.config.encoder_true_length, model.config.encoder_true_length_margin) == (False, 0.0)


def test_windows_are_encoded_as_the_encoder_itself_encodes_them():
    student, seen = true_length_encoder(0.5), []
    adapter = {**ADAPTER, "max_source_positions": 200}
    model = FastSLMForCausalLM.from_parts(student, tiny_language_model(), qformer_config=adapter)
    model.model.audio_tower.register_forward_hook(lambda module, inputs, output: seen.extend(output))
    features = torch.full((4, 80, 400), -0.75)
    lengths = (130, 400, 151, 40)
    for row, length in zip(features, lengths, strict=True):
        row[:, : length + 2] = torch.randn(80, min(length + 2, 400))
    mask = (torch.arange(400)[None] < torch.tensor(lengths)[:, None]).long()
    with torch.no_grad():
        model.get_audio_features(features, mask)
        expected = student.model.encoder(features, attention_mask=mask)
    # Blocks of equal length, in the order of their first window.
    assert [len(states) for states in seen] == [100, 200, 150, 50] == [expected.positions[i] for i in (0, 1, 2, 3)]
    for states, row in zip(seen, expected.last_hidden_state, strict=True):
        torch.testing.assert_close(states, row[: len(states)])


def test_a_margin_must_be_seconds():
    with pytest.raises(ValueError, match="encoder_true_length_margin=-1 must be seconds"):
        tiny_fastslm(encoder_true_length_margin=-1)


def test_tokens_in_proportion_to_length():
    model = tiny_fastslm({"tokens_follow_length": True, "mask_padding": True})
    audio = model.get_audio_features(windows(3), mask_of(100, 41, 1))
    assert audio.window_token_counts.tolist() == [5, 3, 1]
    assert audio.pooler_output.shape == (9, 48)
    assert (
        model(**prompts(8, 1), input_features=windows(3), input_features_mask=mask_of(100, 41, 1))
        .logits.isfinite()
        .all()
    )


def test_nested_rates_at_run_time():
    model, plain = tiny_fastslm({"rates": (1, 2, 5)}), tiny_fastslm()
    features = windows(2)
    full = model.get_audio_features(features, tokens_per_window=5).pooler_output
    assert torch.equal(full, plain.get_audio_features(features).pooler_output)
    assert len(model.get_audio_features(features, tokens_per_window=2).pooler_output) == 4
    model.config.tokens_per_window = 1
    assert len(model.get_audio_features(features).pooler_output) == 2
    assert model(**prompts(4), input_features=features, tokens_per_window=torch.tensor(2)).logits.isfinite().all()


def test_loss_leaves_speech_out(model):
    inputs = prompts(QUERIES, 2 * QUERIES)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    output = model(**inputs, input_features=windows(3), labels=labels)
    shifted = labels[:, 1:].clone()
    shifted[shifted == AUDIO_ID] = -100
    expected = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), shifted.flatten())
    torch.testing.assert_close(output.loss, expected)
    summed = model(**inputs, input_features=windows(3), labels=labels, num_items_in_batch=10).loss
    torch.testing.assert_close(summed, expected * (shifted != -100).sum() / 10)


def test_logits_to_keep(model):
    inputs = {**prompts(QUERIES), "input_features": windows(1)}
    torch.testing.assert_close(model(**inputs, logits_to_keep=2).logits, model(**inputs).logits[:, -2:])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_reaches_the_adapter_and_nothing_frozen(checkpointing):
    model = tiny_fastslm({"intermediate_size": 40}).train()
    model.model.language_model.requires_grad_(False)
    model.lm_head.requires_grad_(False)
    if checkpointing:
        getattr(model, f"{CHECKPOINTING}_enable")({"use_reentrant": False})
    inputs = prompts(QUERIES, QUERIES)
    model(**inputs, input_features=windows(2), labels=inputs["input_ids"]).loss.backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    wanted = {n for n, _ in model.named_parameters() if "adapter." in n or "multi_modal_projector." in n}
    assert reached == wanted
    assert all(p.grad.abs().max() > 0 for n, p in model.named_parameters() if n in wanted)
    assert not model.model.audio_tower.training


def test_encoder_trains_where_it_is_not_frozen():
    model = tiny_fastslm(freeze_audio_tower=False).train()
    inputs = prompts(QUERIES)
    model(**inputs, input_features=windows(1), labels=inputs["input_ids"]).loss.backward()
    assert model.model.audio_tower.conv1.weight.grad.abs().max() > 0


def test_save_and_load(tmp_path):
    model = tiny_fastslm({"rates": (2, 5), "query_clock": "aligned"}, encoder_window_batch=3)
    inputs = {**prompts(QUERIES), "input_features": windows(1)}
    model.save_pretrained(tmp_path)
    loaded = FastSLMForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    assert not any(parameter.requires_grad for parameter in loaded.model.audio_tower.parameters())
    body = FastSLMModel.from_pretrained(tmp_path)
    assert torch.equal(body(**inputs).last_hidden_state, model.model(**inputs).last_hidden_state)
    assert HFQFormerConfig.from_pretrained(tmp_path).rates == [2, 5]
    assert str(tmp_path) not in (tmp_path / "config.json").read_text()


def test_eager_equals_sdpa():
    model, inputs = tiny_fastslm(), {**prompts(QUERIES, 2 * QUERIES), "input_features": windows(3)}
    real, expected = inputs["attention_mask"].bool(), model(**inputs).logits
    model.set_attn_implementation("eager")
    torch.testing.assert_close(model(**inputs).logits[real], expected[real], rtol=1e-4, atol=1e-4)


def test_parts_of_any_whisper(tmp_path):
    student = FastWhisperForConditionalGeneration.from_teacher(tiny_whisper(fresh_tokenizer()), decoder_layers=1)
    student.save_pretrained(tmp_path / "student")
    tiny_language_model().save_pretrained(tmp_path / "llm")
    model = FastSLMForCausalLM.from_parts(tmp_path / "student", str(tmp_path / "llm"))
    assert model.config.qformer_config.max_source_positions == student.config.max_source_positions
    audio = model.get_audio_features(torch.zeros(1, 80, model.config.window_mel_frames))
    assert audio.pooler_output.shape == (50, 48)
    assert torch.equal(model.model.audio_tower.conv1.weight, student.model.encoder.conv1.weight)


def test_parts_with_a_tokenizer_of_more_ids():
    processor = tiny_processor()
    model = tiny_fastslm(tokenizer=processor.tokenizer)
    assert model.config.text_config.vocab_size == len(processor.tokenizer)
    assert model.config.audio_token_id == processor.audio_token_id
    assert processor.tokenizer.convert_tokens_to_ids("<|im_end|>") in model.generation_config.eos_token_id


def test_parts_that_do_not_fit():
    with pytest.raises(ValueError, match="must be a Whisper"):
        FastSLMForCausalLM.from_parts(tiny_language_model(), tiny_language_model())
    with pytest.raises(ValueError, match="not a causal language model"):
        FastSLMForCausalLM.from_parts(tiny_encoder(), tiny_language_model().model, qformer_config=ADAPTER)
    with pytest.raises(ValueError, match="adapter takes 49 frames"):
        tiny_fastslm({"max_source_positions": 49})
    language_model = tiny_language_model()
    language_model.lm_head.register_forward_hook(lambda module, inputs, output: 2 * output)
    original = language_model.forward
    language_model.forward = lambda *args, **kwargs: type(original(*args, **kwargs))(
        logits=original(*args, **kwargs).logits * 3
    )
    with pytest.raises(ValueError, match="logits are not its hidden states"):
        tiny_fastslm(language_model=language_model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder_window_batch": 0}, "at least 1"),
        ({"window_overlap": 1.0}, "shorter than a window"),
        ({"tokens_per_window": 3}, "not one of"),
    ],
)
def test_impossible_configurations(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_fastslm(**settings)


def test_defaults_are_the_published_model():
    config = FastSLMConfig()
    with torch.device("meta"):
        model = FastSLMModel(config)
    assert sum(p.numel() for p in model.multi_modal_projector.parameters()) == 3_279_360
    assert sum(p.numel() for p in model.adapter.parameters()) == 52_861_440
    assert (config.window_seconds, config.window_overlap, config.encoder_true_length) == (30.0, 0.0, False)

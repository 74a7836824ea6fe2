"""The quick way to greedy text: the token that the whole output layer would choose, and the text of `generate`."""

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList, WhisperForConditionalGeneration

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.modeling import greedy_whisper
from fastwhisper.modeling.greedy_whisper import ScreenedProjection, is_plain

from ..tiny_models import tiny_whisper

NOTHING = torch.zeros(4_000)


def weights(kind: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4_000, 64, generator=generator)
    if kind == "one outlier per row":
        weight[torch.arange(4_000), torch.randint(64, (4_000,), generator=generator)] *= 100
    elif kind == "rows of all sizes":
        weight *= torch.logspace(-6, 3, 4_000)[torch.randperm(4_000, generator=generator), None]
    elif kind == "nearly equal rows":
        weight = weight[:1] + 1e-3 * weight
    elif kind == "empty rows":
        weight[::3] = 0
    return weight


@pytest.mark.parametrize(
    "kind", ["ordinary", "one outlier per row", "rows of all sizes", "nearly equal rows", "empty rows"]
)
@pytest.mark.parametrize("outlier", [1, 1_000])
def test_the_best_token_is_that_of_the_whole_layer(kind, outlier):
    weight = weights(kind)
    projection = ScreenedProjection(weight)
    for hidden in torch.randn(50, 64, generator=torch.Generator().manual_seed(1)):
        hidden[7] *= outlier
        exact = weight.double() @ hidden.double()
        found = projection.best(hidden, NOTHING)
        # In float32 a sum has an error, and so has the whole layer's.
        assert exact[found] >= exact.max() - 1e-5 * (weight.norm(dim=1)[found] * hidden.norm())


def saturating_product(states: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """As a CPU without VNNI multiplies int8: one side made unsigned, and sums of two products in 16 bits."""
    unsigned = states.int() + 128
    pairs = (unsigned[:, :, None] * levels.int()).unflatten(1, (-1, 2)).sum(dim=2)
    return (pairs.clamp(-(2**15), 2**15 - 1).sum(dim=1) - 128 * levels.sum(dim=0)).int()


def test_products_that_are_not_exact_are_not_trusted(monkeypatch):
    weight = weights("ordinary")
    monkeypatch.setattr(torch, "_int_mm", saturating_product)
    projection = ScreenedProjection(weight)
    for hidden in torch.randn(50, 64, generator=torch.Generator().manual_seed(1)):
        assert projection.best(hidden, NOTHING) == (weight.double() @ hidden.double()).argmax()


def test_few_rows_are_looked_at(monkeypatch):
    # What any CPU with exact products of int8 computes, on one without as well.
    monkeypatch.setattr(torch, "_int_mm", lambda states, levels: states.int() @ levels.int())
    projection = ScreenedProjection(weights("ordinary"))
    rows = []
    layer = projection.weight
    projection.weight = type("Layer", (), {"__getitem__": lambda _, ids: rows.append(len(ids)) or layer[ids]})()
    for hidden in torch.randn(50, 64, generator=torch.Generator().manual_seed(1)):
        projection.best(hidden, NOTHING)
    assert len(rows) == 50 and max(rows) < 100


def test_suppressed_tokens_are_never_chosen():
    weight = weights("ordinary")
    projection = ScreenedProjection(weight)
    hidden = torch.randn(64, generator=torch.Generator().manual_seed(1))
    order = (weight @ hidden).argsort(descending=True)
    suppressed = NOTHING.clone()
    for place in (0, 1, 2, 50):
        assert projection.best(hidden, suppressed) == order[place]
        suppressed[order[: {0: 1, 1: 2, 2: 50, 50: 51}[place]]] = -torch.inf


@pytest.mark.parametrize("hidden", [torch.zeros(64), torch.full((64,), torch.nan), torch.full((64,), torch.inf)])
def test_states_without_a_best_token_give_what_the_layer_gives(hidden):
    weight = weights("ordinary")
    assert ScreenedProjection(weight).best(hidden, NOTHING) == (weight @ hidden).argmax()


# ---- generate ----


@pytest.fixture
def pair(demo_tokenizer):
    """A student and the stock class with its weights."""
    stock = tiny_whisper(demo_tokenizer, max_target_positions=40)
    student = FastWhisperForConditionalGeneration.from_teacher(stock, decoder_layers=4)
    stock.generation_config.suppress_tokens = student.generation_config.suppress_tokens = [5, 9, 20]
    stock.generation_config.begin_suppress_tokens = student.generation_config.begin_suppress_tokens = [30, 31]
    return student, stock


def features(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 80, 200, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"max_new_tokens": 5}, {"repetition_penalty": 3.0}, {"no_repeat_ngram_size": 2}, {"min_new_tokens": 9},
        {"num_beams": 2}, {"return_timestamps": True}, {"bad_words_ids": [[7], [8]]}, {"temperature": 0.0},
    ],
)  # fmt: skip
def test_the_text_is_that_of_the_stock_class(pair, rows, options):
    student, stock = pair
    for seed in range(5):
        batch = features(rows, seed)
        assert torch.equal(student.generate(batch, **options), stock.generate(batch, **options))


def test_the_plain_case_takes_the_quick_way_and_the_others_do_not(pair, monkeypatch):
    student, _ = pair
    calls = []

    def write_a_token(search, model, input_ids, **options):
        calls.append(1)
        return torch.cat([input_ids, torch.full((len(input_ids), 1), 40)], dim=1)

    monkeypatch.setattr(greedy_whisper.GreedySearch, "__call__", write_a_token)
    for options in ({}, {"language": "en", "task": "transcribe"}, {"max_length": 9}, {"num_beams": 1}):
        student.generate(features(1), **options)
    assert len(calls) == 4
    for options in ({"num_beams": 2}, {"do_sample": True}, {"return_timestamps": True}, {"output_scores": True}):
        student.generate(features(1), **options)
    student.train().generate(features(1))
    student.eval().double().generate(features(1).double())
    assert len(calls) == 4


@pytest.mark.parametrize(
    "setting",
    ["return_timestamps", "return_dict_in_generate", "do_sample", "condition_on_prev_tokens", "cache_implementation"],
)
def test_settings_of_the_generation_config_count_too(setting):
    assert is_plain(GenerationConfig(), {})
    config = GenerationConfig()
    setattr(config, setting, "static" if setting == "cache_implementation" else True)
    assert not is_plain(config, {})


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("setting", [{"repetition_penalty": 3.0}, {"no_repeat_ngram_size": 2}, {"min_length": 9}])
def test_rules_of_the_generation_config_hold(pair, rows, setting):
    student, stock = pair
    for model in pair:
        model.generation_config.update(**setting)
    for seed in range(5):
        batch = features(rows, seed)
        assert torch.equal(student.generate(batch), stock.generate(batch))


def test_changed_weights_are_noticed(pair):
    student, stock = pair
    batch = features(1)
    assert torch.equal(student.generate(batch), stock.generate(batch))
    for change in (lambda weight: weight.mul_(-1), lambda weight: weight.copy_(weight.flip(0))):
        with torch.no_grad():
            change(student.proj_out.weight)
            change(stock.proj_out.weight)
        assert torch.equal(student.generate(batch), stock.generate(batch))
    student.load_state_dict(FastWhisperForConditionalGeneration(student.config).state_dict())
    stock.load_state_dict(student.state_dict())
    assert torch.equal(student.generate(batch), stock.generate(batch))


def test_callers_processors_and_criteria_are_heard(pair):
    student, stock = pair

    def only_even(ids, scores):
        scores = scores.clone()
        scores[:, 1::2] = -torch.inf
        return scores

    options = {"logits_processor": LogitsProcessorList([only_even])}
    found = student.generate(features(1), **options)
    assert torch.equal(found, stock.generate(features(1), **options))
    stops = [lambda ids, scores, **_: torch.full((len(ids),), ids.shape[1] >= 6)]
    assert torch.equal(
        student.generate(features(1), stopping_criteria=stops), stock.generate(features(1), stopping_criteria=stops)
    )


@pytest.mark.parametrize("model", ["whisper-tiny.en", "whisper-base"])
def test_real_text_is_that_of_the_stock_class(real_model, real_speech, model):
    import soundfile
    from transformers import WhisperProcessor

    name = str(real_model(model))
    processor = WhisperProcessor.from_pretrained(name)
    stock = WhisperForConditionalGeneration.from_pretrained(name).eval()
    student = FastWhisperForConditionalGeneration.from_teacher(stock, decoder_layers=stock.config.decoder_layers)
    clips = sorted(real_speech("speechocean762").rglob("*.opus"))[:: 300 if model == "whisper-base" else 200]
    assert len(clips) > 10
    for clip in clips:
        samples, rate = soundfile.read(clip, dtype="float32")
        batch = processor(samples, sampling_rate=rate, return_tensors="pt").input_features
        options = {} if model.endswith(".en") else {"language": "en", "task": "transcribe"}
        assert torch.equal(student.generate(batch, **options), stock.generate(batch, **options)), clip


# ---- one token at a time ----


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("lengths", [[200], [200, 100, 60]])
@torch.no_grad()
def test_steps_of_one_token_are_those_of_the_modules(demo_tokenizer, attention, lengths):
    student = FastWhisperForConditionalGeneration.from_teacher(tiny_whisper(demo_tokenizer), decoder_layers=3)
    student.set_attn_implementation(attention)
    encoded = student.model.encoder(features(len(lengths)), context_frames=lengths)
    tokens = torch.randint(200, (len(lengths), 20), generator=torch.Generator().manual_seed(1))
    assert greedy_whisper.OneTokenDecoder.fits(student.model.decoder)

    steps = greedy_whisper._Steps(student.model, encoded, greedy_whisper.empty_cache())
    states = [steps(tokens[:, :3]), *(steps(tokens[:, place : place + 1]) for place in range(3, 20))]

    whole = student.model(encoder_outputs=encoded, decoder_input_ids=tokens).last_hidden_state
    torch.testing.assert_close(torch.cat(states, dim=1), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("listener", ["register_forward_hook", "register_forward_pre_hook", "forward"])
def test_whoever_listens_to_a_part_of_the_decoder_hears_every_token(pair, listener):
    student, stock = pair
    part, heard = student.model.decoder.layers[1].encoder_attn.q_proj, []
    if listener == "forward":
        own = part.forward
        part.forward = lambda states: heard.append(1) or own(states)
    else:
        getattr(part, listener)(lambda *_: heard.append(1))
    found = student.generate(features(1))
    assert torch.equal(found, stock.generate(features(1)))
    assert len(heard) >= found.shape[1]


def test_whoever_listens_to_the_model_hears_every_token(pair):
    student, _ = pair
    heard = []
    student.register_forward_hook(lambda *_: heard.append(1))
    found = student.generate(features(1))
    assert len(heard) >= found.shape[1] - 4 > 0  # without the prompt, which is one step


def test_adapters_are_not_passed_by(pair):
    from peft import LoraConfig, get_peft_model

    student, stock = pair
    tuned, reference = (
        get_peft_model(model, LoraConfig(target_modules=["q_proj", "fc1"], init_lora_weights=False))
        for model in (student, stock)
    )
    reference.load_state_dict(tuned.state_dict())
    for seed in range(3):
        batch = features(1, seed)
        assert torch.equal(tuned.generate(batch), reference.generate(batch))

"""From a teacher to a student: which layers it keeps, what it copies, and what is refused."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GenerationConfig,
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperForCausalLM,
    WhisperForConditionalGeneration,
    WhisperModel,
)

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.modeling.modeling_fastwhisper import map_alignment_heads, spaced_layers

from ..tiny_models import tiny_whisper


def batch_for(model, seed=0):
    """Features of two clips and labels of different length."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(model.config.vocab_size, (2, 7), generator=generator)
    labels[1, 4:] = -100
    features = torch.randn(2, 80, 2 * model.config.max_source_positions, generator=generator)
    return {"input_features": features, "labels": labels}


def deep_whisper(decoder_layers, encoder_layers=1, **settings):
    """As many layers as real Whispers have, none of them wider than a thread."""
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=40, d_model=4, encoder_layers=encoder_layers, decoder_layers=decoder_layers,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=4, decoder_ffn_dim=4,
        max_source_positions=8, max_target_positions=8, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        decoder_start_token_id=1, **settings,
    )  # fmt: skip
    return WhisperForConditionalGeneration(config).eval()


# ---- layers ----


@torch.no_grad()
def test_all_layers_kept_give_the_same_logits(teacher):
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=4)
    batch = batch_for(teacher)
    assert torch.equal(student(**batch).logits, teacher(**batch).logits)


@pytest.mark.parametrize(
    ("available", "kept", "layers"),
    [(32, 4, [0, 10, 20, 31]), (12, 2, [0, 11]), (4, 1, [3]), (1, 1, [0]), (4, 4, [0, 1, 2, 3]), (6, 3, [0, 2, 5])],
)
def test_layers_are_spaced_with_first_and_last(available, kept, layers):
    assert spaced_layers(available, kept, "decoder") == layers


@pytest.mark.parametrize(("available", "kept"), [(32, 4), (12, 2), (4, 1)])
def test_layers_come_from_the_teacher_in_order(available, kept):
    teacher = deep_whisper(available)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=kept)
    assert student.config.decoder_layers == len(student.model.decoder.layers) == kept
    assert student.config.decoder_layer_map == spaced_layers(available, kept, "decoder")
    assert student.config.teacher_decoder_layers == available
    for layer, source in zip(student.model.decoder.layers, student.config.decoder_layer_map, strict=True):
        its = teacher.model.decoder.layers[source].state_dict()
        assert all(torch.equal(weight, its[name]) for name, weight in layer.state_dict().items())


def test_the_encoder_can_be_cut():
    teacher = deep_whisper(2, encoder_layers=6)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2, encoder_layers=3)
    assert student.config.encoder_layer_map == [0, 2, 5] and student.config.teacher_encoder_layers == 6
    assert student.config.encoder_layers == student.config.num_hidden_layers == len(student.model.encoder.layers) == 3
    for layer, source in zip(student.model.encoder.layers, [0, 2, 5], strict=True):
        assert torch.equal(layer.fc1.weight, teacher.model.encoder.layers[source].fc1.weight)
    whole = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=1)
    assert whole.config.encoder_layer_map == list(range(6))


def test_all_but_the_layers_is_copied_and_nothing_is_shared(teacher):
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    its, mine = teacher.state_dict(), student.state_dict()
    outside = {name for name in its if ".layers." not in name}
    assert {name.split(".")[2] for name in outside if name.startswith("model.")} == {
        "conv1", "conv2", "embed_positions", "embed_tokens", "layer_norm",
    }  # fmt: skip
    assert outside <= mine.keys() and "proj_out.weight" in outside
    assert all(torch.equal(mine[name], its[name]) for name in outside)
    assert student.proj_out.weight is student.model.decoder.embed_tokens.weight
    before = {name: weight.clone() for name, weight in its.items()}
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(teacher.state_dict()[name], weight) for name, weight in before.items())


@pytest.mark.parametrize("training", [False, True])
def test_mode_and_precision_are_the_teachers(teacher, training):
    student = FastWhisperForConditionalGeneration.from_teacher(teacher.to(torch.bfloat16).train(training), 1)
    assert student.dtype == torch.bfloat16 and student.training == training


# ---- configuration ----


def test_settings_are_the_teachers_but_for_the_layers():
    teacher = deep_whisper(4, dropout=0.2, suppress_tokens=[3, 5], begin_suppress_tokens=[7], median_filter_width=5)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    its, mine = teacher.config.to_dict(), student.config.to_dict()
    changed = {name for name in its if its[name] != mine[name]}
    assert changed <= {"decoder_layers", "architectures", "dtype", "auto_map", "attribute_map", "_name_or_path"}
    assert mine["suppress_tokens"] == [3, 5] and mine["begin_suppress_tokens"] == [7] and mine["dropout"] == 0.2
    assert student.config.model_type == "whisper"


def test_the_generation_config_is_the_teachers_but_for_heads_and_length(teacher):
    hub = {
        "forced_decoder_ids": [[1, None], [2, 644]], "suppress_tokens": [3, 5], "begin_suppress_tokens": [7],
        "num_beams": 5, "return_timestamps": True, "no_repeat_ngram_size": 3, "repetition_penalty": 1.1, "task": None,
        "compression_ratio_threshold": 1.35, "prompt_condition_type": "all-segments", "use_cache": True,
    }  # fmt: skip
    for name, value in hub.items():
        setattr(teacher.generation_config, name, value)
    teacher.generation_config.max_length = 448
    before = teacher.generation_config.to_dict()
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    mine = student.generation_config
    assert mine.max_length == student.config.max_target_positions == 64 and mine.alignment_heads == [[1, 0]]
    placed = {"max_length", "alignment_heads", "_from_model_config"}
    assert {k: v for k, v in mine.to_dict().items() if k not in placed} == {
        k: v for k, v in before.items() if k not in placed
    }
    mine.lang_to_id["<|xx|>"] = 1
    mine.suppress_tokens.append(9)
    assert teacher.generation_config.to_dict() == before


@pytest.mark.parametrize("length", [30, 64])
def test_a_teacher_that_stops_early_has_a_student_that_does(teacher, length):
    teacher.generation_config.max_length = length
    assert FastWhisperForConditionalGeneration.from_teacher(teacher, 1).generation_config.max_length == length


def test_beams_that_the_teacher_leaves_open_stay_open(teacher):
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=4)
    assert student.generation_config.num_beams is teacher.generation_config.num_beams is None


def test_max_length_is_448_where_the_decoder_is_longer(demo_tokenizer):
    teacher = tiny_whisper(demo_tokenizer, max_target_positions=500)
    assert FastWhisperForConditionalGeneration.from_teacher(teacher, 1).generation_config.max_length == 448


@pytest.mark.parametrize(
    ("heads", "layer_map", "mapped"),
    [
        ([[10, 3], [31, 1], [12, 0]], [0, 10, 20, 31], [[1, 3], [3, 1]]),
        ([[3, 0], [2, 1]], [3], [[0, 0]]),
        ([[5, 0]], [0, 10, 20, 31], [[2, 0], [2, 1], [3, 0], [3, 1]]),
        ([[5, 0]], [11], [[0, 0], [0, 1]]),
        (None, [0, 11], [[1, 0], [1, 1]]),
        ([], [0, 5, 11], [[1, 0], [1, 1], [2, 0], [2, 1]]),
    ],
)
def test_alignment_heads_follow_their_layers(heads, layer_map, mapped):
    assert map_alignment_heads(heads, layer_map, attention_heads=2) == mapped


@pytest.mark.parametrize(
    ("decoder_layers", "heads"), [(4, [[3, 0], [2, 1]]), (2, [[1, 0]]), (1, [[0, 0]]), (3, [[2, 0]])]
)
def test_the_students_alignment_heads_are_within_it(teacher, decoder_layers, heads):
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers)
    assert student.generation_config.alignment_heads == heads
    assert teacher.generation_config.alignment_heads == [[3, 0], [2, 1]]


def test_a_teacher_without_alignment_heads_gets_its_student_some():
    teacher = deep_whisper(4)
    teacher.generation_config = GenerationConfig()
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    assert student.generation_config.alignment_heads == [[1, 0], [1, 1]]


# ---- refusals ----


@pytest.mark.parametrize("asked", [0, -2, 5])
@pytest.mark.parametrize("part", ["decoder", "encoder"])
def test_impossible_layers_name_both_numbers(part, asked):
    teacher = deep_whisper(4, encoder_layers=4)
    with pytest.raises(ValueError, match=rf"{part}_layers={asked} is impossible: the teacher has 4 {part} layers"):
        FastWhisperForConditionalGeneration.from_teacher(teacher, **{"decoder_layers": 1, f"{part}_layers": asked})


def tiny_bert():
    return BertForMaskedLM(
        BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    )


def tiny_t5():
    return T5ForConditionalGeneration(
        T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    )


@pytest.mark.parametrize(("build", "kind"), [(tiny_bert, "bert"), (tiny_t5, "t5")])
def test_another_kind_of_teacher_is_refused(tmp_path, build, kind):
    model = build()
    with pytest.raises(ValueError, match=f"must be a Whisper.*{type(model).__name__}.*model_type '{kind}'"):
        FastWhisperForConditionalGeneration.from_teacher(model)
    model.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=f"must be a Whisper.*other.*model_type '{kind}'"):
        FastWhisperForConditionalGeneration.from_teacher(tmp_path / "other")


def test_a_whisper_without_an_output_layer_is_refused(teacher):
    for kind in (WhisperModel, WhisperForCausalLM):
        with pytest.raises(ValueError, match=f"language modelling head; {kind.__name__}"):
            FastWhisperForConditionalGeneration.from_teacher(kind(teacher.config))


def test_a_teacher_with_adapters_is_refused_until_they_are_merged(teacher):
    adapted = get_peft_model(teacher, LoraConfig(r=2, target_modules=["q_proj"]))
    for model in (adapted, teacher):
        with pytest.raises(ValueError, match=f"{type(model).__name__} has adapters.*merge them into it first"):
            FastWhisperForConditionalGeneration.from_teacher(model)
    FastWhisperForConditionalGeneration.from_teacher(adapted.merge_and_unload())


def test_a_quantised_teacher_is_refused(teacher, tmp_path):
    teacher.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="is quantised, but a student needs the weights from before"):
        FastWhisperForConditionalGeneration.from_teacher(tmp_path)


@torch.no_grad()
def test_an_output_layer_of_its_own_stays_one(tmp_path):
    teacher = deep_whisper(2, tie_word_embeddings=False)
    teacher.proj_out.weight.normal_()
    FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2).save_pretrained(tmp_path)
    student = FastWhisperForConditionalGeneration.from_pretrained(tmp_path).eval()
    batch = {"input_features": torch.ones(1, 80, 16), "decoder_input_ids": torch.tensor([[1, 2]])}
    assert torch.equal(student(**batch).logits, teacher(**batch).logits)


# ---- folders ----


# As openai/whisper-base on the Hub has it, written by transformers 4.
OF_THE_HUB = {
    "_name_or_path": "openai/whisper-base",
    "architectures": ["WhisperForConditionalGeneration"],
    "begin_suppress_tokens": [220, 646],
    "forced_decoder_ids": [[1, 641], [2, 644], [3, 648]],
    "max_length": 448,
    "median_filter_width": 9,
    "num_hidden_layers": 2,
    "suppress_tokens": [1, 2],
    "torch_dtype": "float16",
    "transformers_version": "4.27.0.dev0",
    "use_cache": False,
}


def test_what_a_student_has_of_a_config_of_the_hub(teacher, tmp_path):
    teacher.save_pretrained(tmp_path / "teacher")
    path = tmp_path / "teacher" / "config.json"
    written = {**json.loads(path.read_text()), **OF_THE_HUB}
    del written["dtype"]
    path.write_text(json.dumps(written))
    student = FastWhisperForConditionalGeneration.from_teacher(tmp_path / "teacher", decoder_layers=2)
    # Adapters name their base model by it: a student is not its teacher.
    assert student.name_or_path == "" and student.config.teacher == "teacher"
    student.save_pretrained(tmp_path / "student")
    saved = json.loads((tmp_path / "student" / "config.json").read_text())
    kept = set(OF_THE_HUB) - {
        "_name_or_path",
        "max_length",
        "num_hidden_layers",
        "torch_dtype",
        "transformers_version",
    }
    assert {name: saved[name] for name in kept} == {name: OF_THE_HUB[name] for name in kept}
    assert not {"_name_or_path", "num_hidden_layers", "torch_dtype"} & saved.keys() and saved["dtype"] == "float32"
    assert saved["encoder_layers"] == 2 and saved["decoder_layers"] == 2


def test_a_teacher_by_folder(teacher, tmp_path):
    folder = tmp_path / "somewhere" / "whisper-small-german"
    teacher.save_pretrained(folder)
    batch = batch_for(teacher)
    expected = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    student = FastWhisperForConditionalGeneration.from_teacher(str(folder) + "/", decoder_layers=2).eval()
    torch.testing.assert_close(student(**batch).logits, expected(**batch).logits, rtol=0, atol=0)
    assert student.config.teacher == "whisper-small-german"
    student.save_pretrained(tmp_path / "student")
    for file in (tmp_path / "student").glob("*.json"):
        assert str(tmp_path) not in file.read_text(), file.name
    saved = json.loads((tmp_path / "student" / "config.json").read_text())
    assert saved["teacher"] == "whisper-small-german" and saved["decoder_layer_map"] == [0, 3]
    assert saved["fastwhisper_version"] and saved["model_type"] == "whisper"


def test_layers_are_checked_before_weights_are_read(teacher, tmp_path):
    teacher.config.save_pretrained(tmp_path)  # no weights at all
    with pytest.raises(ValueError, match="decoder_layers=5 is impossible: the teacher has 4"):
        FastWhisperForConditionalGeneration.from_teacher(tmp_path, decoder_layers=5)


def test_a_half_precision_folder_starts_in_float32_unless_asked(teacher, tmp_path):
    teacher.to(torch.bfloat16).save_pretrained(tmp_path)
    assert FastWhisperForConditionalGeneration.from_teacher(tmp_path, 1).dtype == torch.float32
    half = FastWhisperForConditionalGeneration.from_teacher(tmp_path, 1, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16


@torch.no_grad()
def test_save_and_load_is_a_round_trip(teacher, tmp_path):
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2, encoder_layers=1)
    student.save_pretrained(tmp_path)
    batch = batch_for(teacher)
    expected = student(**batch).logits
    for kind in (FastWhisperForConditionalGeneration, WhisperForConditionalGeneration):
        loaded = kind.from_pretrained(tmp_path)
        assert torch.equal(loaded(**batch).logits, expected)
        assert loaded.generation_config.alignment_heads == [[1, 0]]
        assert loaded.generation_config.lang_to_id == teacher.generation_config.lang_to_id
    own = FastWhisperForConditionalGeneration.from_pretrained(tmp_path).config
    assert own.decoder_layer_map == [0, 3] and own.encoder_layer_map == [1]
    again = FastWhisperForConditionalGeneration.from_teacher(tmp_path, decoder_layers=1)
    assert again.config.teacher_decoder_layers == 2 and again.config.decoder_layer_map == [1]


# ---- loss ----


@torch.no_grad()
def test_the_loss_is_the_stock_mean_or_a_sum_over_the_items(teacher):
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=4)
    batch = batch_for(teacher)
    stock = teacher(**batch).loss
    assert student(**batch).loss == stock
    tokens = int(batch["labels"].ne(-100).sum())
    for items in (tokens, 100, torch.tensor(100)):
        assert student(**batch, num_items_in_batch=items).loss.item() == pytest.approx(
            stock.item() * tokens / int(items), rel=1e-6
        )
    assert student(input_features=batch["input_features"], decoder_input_ids=batch["labels"].relu()).loss is None


def test_gradients_are_those_of_the_stock_loss(teacher):
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=4)
    batch = batch_for(teacher)
    student(**batch).loss.backward()
    teacher(**batch).loss.backward()
    for (name, mine), its in zip(student.named_parameters(), teacher.parameters(), strict=True):
        if its.grad is not None:
            torch.testing.assert_close(mine.grad, its.grad, msg=name)


def test_labels_over_the_decoder_are_named(teacher):
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=1)
    batch = batch_for(teacher)
    with pytest.raises(ValueError, match="65 cannot exceed the maximum allowed length of 64"):
        student(batch["input_features"], labels=torch.ones(2, 65, dtype=torch.long))

"""A folder of ours has what OpenAI's own folders have, and the programs that convert those find it."""

import base64
import json

import pytest
from transformers import AutoTokenizer, WhisperTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from fastwhisper.hub_cards.export import export_folder

from ..hub_folders import demo_processor, save_student, tiny_student
from ..tiny_models import tiny_whisper
from ..whisper_assets import english_spelling_map, whisper_assets, whisper_tokenizer

# What lies beside the weights in openai/whisper-base on the Hub.
OPENAI = {
    "added_tokens.json", "config.json", "generation_config.json", "merges.txt", "model.safetensors", "normalizer.json",
    "preprocessor_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.json",
}  # fmt: skip
SENTENCES = ["Hello, world! 12 naïve cafés", "今日は世界", " <|startoftranscript|><|de|> so <|0.00|> da", "🙂 fin"]


@pytest.fixture(scope="module", params=["multilingual", "gpt2"])
def exported(request, tmp_path_factory):
    """A folder with OpenAI's vocabulary, the tokenizer, and the table of ranks in openai-whisper's wheel."""
    tokenizer = whisper_tokenizer(request.param)
    before = tokenizer.english_spelling_normalizer
    tokenizer.english_spelling_normalizer = english_spelling_map()
    model = tiny_whisper(tokenizer, d_model=8, decoder_layers=1, encoder_layers=1)
    folder = export_folder(model, demo_processor(tokenizer), tmp_path_factory.mktemp("export") / request.param)
    tokenizer.english_spelling_normalizer = before
    return folder, tokenizer, (whisper_assets() / f"{request.param}.tiktoken").read_text()


def test_every_file_of_openai_is_there(exported):
    folder, _, _ = exported
    assert {path.name for path in folder.iterdir()} >= OPENAI
    assert json.loads((folder / "normalizer.json").read_text()) == english_spelling_map()


def test_what_the_converter_of_whisper_cpp_reads(exported):
    folder, _, ranks = exported
    letters = {letter: byte for byte, letter in bytes_to_unicode().items()}
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    read = {token: bytes(letters[letter] for letter in text) for text, token in vocabulary.items()}
    rows = (line.split() for line in ranks.splitlines() if line)
    assert read == {int(rank): base64.b64decode(token) for token, rank in rows}
    assert list(vocabulary.values()) == list(range(len(vocabulary)))
    assert json.loads((folder / "added_tokens.json").read_text())["<|notimestamps|>"] in (50362, 50363)
    config = json.loads((folder / "config.json").read_text())
    for name in (
        "vocab_size", "max_source_positions", "max_target_positions", "d_model", "num_mel_bins",
        "encoder_attention_heads", "encoder_layers", "decoder_attention_heads", "decoder_layers",
    ):  # fmt: skip
        assert isinstance(config[name], int), name


def test_the_plain_files_alone_are_the_tokenizer(exported):
    folder, tokenizer, _ = exported
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert merges[0] == "#version: 0.2"
    special = json.loads((folder / "special_tokens_map.json").read_text())
    plain = WhisperTokenizer(
        vocab=json.loads((folder / "vocab.json").read_text(encoding="utf-8")),
        merges=[tuple(line.split(" ")) for line in merges[1:]],
        extra_special_tokens=special.pop("additional_special_tokens"),
        **special,
    )
    added = json.loads((folder / "added_tokens.json").read_text())
    plain.add_tokens(sorted(added, key=added.get))
    assert plain.get_vocab() == tokenizer.get_vocab()
    for sentence in SENTENCES:
        assert plain(sentence).input_ids[1:] == tokenizer(sentence).input_ids[1:]


def test_the_tokenizer_loads_as_it_was(exported):
    folder, tokenizer, _ = exported
    # transformers v4 takes a dictionary for a list under the name that v5 writes.
    assert "extra_special_tokens" not in json.loads((folder / "tokenizer_config.json").read_text())
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.all_special_ids == tokenizer.all_special_ids
    assert loaded.special_tokens_map == tokenizer.special_tokens_map
    for sentence in SENTENCES:
        ids = tokenizer(sentence).input_ids
        assert loaded(sentence).input_ids == ids
        assert loaded.decode(ids, decode_with_timestamps=True) == tokenizer.decode(ids, decode_with_timestamps=True)
        assert loaded.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids, skip_special_tokens=True)


def test_the_vocabulary_of_the_demo(tmp_path, demo_tokenizer):
    folder = save_student(tmp_path, demo_tokenizer)
    vocabulary = json.loads((folder / "vocab.json").read_text()) | json.loads(
        (folder / "added_tokens.json").read_text()
    )
    assert vocabulary == demo_tokenizer.get_vocab()
    assert tiny_student(demo_tokenizer).config.vocab_size == len(vocabulary)

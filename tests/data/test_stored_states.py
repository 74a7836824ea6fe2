"""Keys of rows: what is heard counts, and not where it lies or what it is called; and what an entry must look like."""

import pytest
import torch
from transformers import WhisperFeatureExtractor

from fastwhisper.data.row_store import RowStore
from fastwhisper.data.stored_states import StoredStates, extractor_key, heard_key, weights_key
from fastwhisper.errors import InputError

from ..sounds import tone, write_tone


def test_a_file_is_its_content_wherever_it_is(tmp_path):
    here, there = write_tone(tmp_path / "a.wav"), write_tone(tmp_path / "elsewhere.wav")
    content = (tmp_path / "a.wav").read_bytes()
    forms = [here, tmp_path / "a.wav", {"path": there, "bytes": None}, {"path": "a.wav", "bytes": content}, content]
    assert len({heard_key({"audio": form}) for form in forms}) == 1
    other = write_tone(tmp_path / "a.wav", frequency=441)
    assert heard_key({"audio": other}) != heard_key({"audio": there})


def test_samples_and_features_are_their_values():
    samples = tone(0.5)
    row = {"audio": {"array": samples, "sampling_rate": 16_000}}
    same = {"audio": {"array": torch.tensor(samples), "sampling_rate": 16_000}, "text": "not heard"}
    assert heard_key(row) == heard_key(same)
    assert heard_key(row) != heard_key({"audio": {"array": samples, "sampling_rate": 8_000}})
    features = torch.randn(80, 20)
    assert heard_key({"input_features": features}) == heard_key({"input_features": features.tolist()})
    assert heard_key({"input_features": features}) != heard_key({"input_features": features.T})


def test_audio_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="there is no audio file .*gone.wav"):
        heard_key({"audio": {"path": str(tmp_path / "gone.wav"), "bytes": None}})


def test_every_setting_of_an_extractor_counts():
    settings = [{}, {"chunk_length": 2}, {"feature_size": 128}, {"hop_length": 80}, {"n_fft": 200}, {"dither": 1e-4}]
    assert len({extractor_key(WhisperFeatureExtractor(**changed)) for changed in settings}) == len(settings)
    assert extractor_key(WhisperFeatureExtractor()) == extractor_key(WhisperFeatureExtractor())


def test_every_weight_counts_with_its_name_type_and_shape():
    weights = {"a": torch.zeros(2, 3), "b": torch.ones(2)}
    changed = [
        {**weights, "a": torch.tensor([[0.0, 0, 0], [0, 0, 1e-30]])},
        {**weights, "a": torch.zeros(3, 2)},
        {**weights, "a": torch.zeros(2, 3, dtype=torch.float16)},
        {"a": weights["b"], "b": weights["a"]},
        {"b": weights["b"]},
    ]
    assert len({weights_key(one) for one in (weights, *changed)}) == 6
    assert weights_key(dict(reversed(weights.items()))) == weights_key(weights)


def test_an_entry_of_another_form_is_damaged(tmp_path):
    stored = StoredStates(RowStore(tmp_path), "teacher", 4, torch.float16)
    key = stored.key("heard")
    assert stored.read(key, 3) is None and stored.store.damaged == 0
    states = torch.randn(3, 4)
    assert torch.equal(stored.write(key, states), states.half())
    assert torch.equal(stored.read(key, 3), states.half()) and stored.store.damaged == 0
    assert stored.read(key, 2) is None and stored.store.damaged == 1
    for tensors in ({"states": states}, {"other": states.half()}, {"states": states.half()[:, :2]}):
        stored.store.put(key, tensors)
        assert stored.read(key, 3) is None
    assert stored.store.damaged == 4
    assert stored.bytes_of(3) == pytest.approx(next(tmp_path.rglob("*.safetensors")).stat().st_size, abs=30)


def test_all_that_the_states_depend_on_is_in_the_key(tmp_path):
    store = RowStore(tmp_path)
    keys = {
        StoredStates(store, made_by, 4, dtype).key(*parts)
        for made_by in ("a", "b")
        for dtype in (torch.float16, torch.bfloat16)
        for parts in (("x", "y"), ("xy",), ("x",))
    }
    assert len(keys) == 12

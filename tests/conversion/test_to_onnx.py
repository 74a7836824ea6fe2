"""ONNX Runtime gives what torch gives, at any length."""

import numpy as np
import pytest
import torch
from transformers import WhisperProcessor

from fastwhisper.conversion.export import export
from fastwhisper.data.true_length_features import clip_features
from fastwhisper.transcription.checkpoints import load_checkpoint

from ..engines import sentences, write_tiny_student
from ..recordings import noise

onnxruntime = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install onnxruntime")
pytest.importorskip("onnxscript", reason="needs torch's exporter: pip install fastwhisper[onnx]")


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def greedy(folder, features: np.ndarray, prompt: list[int], room: int) -> list[int]:
    """The loop of the folder's README.md, with so many steps."""
    encoder, decoder = session(folder / "encoder_model.onnx"), session(folder / "decoder_model.onnx")
    (states,) = encoder.run(None, {"input_features": features})
    ids = list(prompt)
    while len(ids) < len(prompt) + room:
        (logits,) = decoder.run(None, {"input_ids": np.array([ids]), "encoder_hidden_states": states})
        ids.append(int(logits[0, -1].argmax()))
    return ids


@pytest.fixture(scope="module")
def tiny(demo_tokenizer, tmp_path_factory):
    """The folders of a student at true length, and of its export."""
    place = tmp_path_factory.mktemp("onnx")
    student = write_tiny_student(place / "student", demo_tokenizer, true_length=True)
    return student, export(student, "onnx", place / "onnx")


def test_each_length_batch_and_text(tiny):
    model, _ = load_checkpoint(tiny[0], "cpu")
    encoder, decoder = (session(tiny[1] / f"{part}_model.onnx") for part in ("encoder", "decoder"))
    torch.manual_seed(0)
    for batch, frames, tokens in [(1, 200, 1), (2, 100, 3), (3, 60, 24)]:
        features, ids = torch.randn(batch, 80, frames), torch.randint(0, 850, (batch, tokens))
        with torch.no_grad():
            expected = model.model.encoder(features, context_frames=[frames] * batch).last_hidden_state
            logits = model(encoder_outputs=(expected,), decoder_input_ids=ids).logits
        (states,) = encoder.run(None, {"input_features": features.numpy()})
        np.testing.assert_allclose(states, expected, atol=1e-4)
        (found,) = decoder.run(None, {"input_ids": ids.numpy(), "encoder_hidden_states": states})
        np.testing.assert_allclose(found, logits, atol=1e-3)


def test_the_folder_is_complete(tiny):
    assert WhisperProcessor.from_pretrained(tiny[1]).tokenizer.get_vocab()
    names = {path.name for path in tiny[1].iterdir()}
    assert {"encoder_model.onnx", "decoder_model.onnx", "config.json", "generation_config.json"} <= names
    assert not names & {"model.safetensors", "encoder_model.onnx.data"} and not list(tiny[1].glob("*.py"))
    assert "math.ceil(len(audio) / 16_000 + 0.5)" in (tiny[1] / "README.md").read_text()


def test_a_greedy_loop_at_a_clips_own_length(tiny):
    model, processor = load_checkpoint(tiny[0], "cpu")
    prompt = processor.tokenizer.convert_tokens_to_ids(
        ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    )
    features = clip_features([noise(0.4, 3)], 100, processor.feature_extractor)
    ids = list(prompt)
    for _ in range(12):
        with torch.no_grad():
            logits = model(features, decoder_input_ids=torch.tensor([ids]), context_frames=[100]).logits
        ids.append(int(logits[0, -1].argmax()))
    assert greedy(tiny[1], features.numpy(), prompt, 12) == ids


@pytest.mark.parametrize("name", ["whisper-tiny.en"])
def test_a_published_whisper_writes_the_same(real_model, real_speech, tmp_path, name):
    folder = export(real_model(name), "onnx", tmp_path / "onnx")
    model, processor = load_checkpoint(real_model(name), "cpu")
    prompt = processor.tokenizer.convert_tokens_to_ids(["<|startoftranscript|>", "<|notimestamps|>"])
    for clip in sentences(real_speech("kathleen_arctic"), 2)[0]:
        features = processor(clip, sampling_rate=16_000, return_tensors="pt").input_features
        expected = model.generate(features, suppress_tokens=None, begin_suppress_tokens=None, max_new_tokens=40)
        ids = greedy(folder, features.numpy(), prompt, 40)
        end = processor.tokenizer.eos_token_id
        assert processor.decode(ids[: ids.index(end)], skip_special_tokens=True) == processor.decode(
            expected[0], skip_special_tokens=True
        )

"""A tiny FastWhisper that is kept, and what it answered when it was: a guard over versions of torch and transformers.

    python -m tests.golden.golden_fastwhisper

writes both anew, for a change of the answers that is wanted.
"""

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

from fastwhisper import FastWhisperForConditionalGeneration

FOLDER = Path(__file__).parent / "tiny_fastwhisper"
ANSWERS = FOLDER / "answers.safetensors"
FRAMES, MEL_BINS, VOCABULARY = 16, 80, 60


def golden_teacher() -> WhisperForConditionalGeneration:
    """Two encoder and four decoder layers; the last four tokens are times."""
    torch.manual_seed(1)
    config = WhisperConfig(
        vocab_size=VOCABULARY, d_model=8, encoder_layers=2, decoder_layers=4, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_mel_bins=MEL_BINS,
        max_source_positions=FRAMES // 2, max_target_positions=12, pad_token_id=50, bos_token_id=50, eos_token_id=50,
        decoder_start_token_id=51, suppress_tokens=[3], begin_suppress_tokens=[50], init_std=0.5,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).eval()
    model.generation_config = GenerationConfig(
        decoder_start_token_id=51, bos_token_id=50, eos_token_id=50, pad_token_id=50, is_multilingual=True,
        lang_to_id={"<|en|>": 52}, task_to_id={"transcribe": 54, "translate": 53}, no_timestamps_token_id=55,
        suppress_tokens=[3], begin_suppress_tokens=[50], alignment_heads=[[3, 1], [1, 0]], max_length=12,
    )  # fmt: skip
    return model


def golden_answers(model: WhisperForConditionalGeneration) -> dict[str, torch.Tensor]:
    """What a model says to sound and labels that are computed, not drawn: numbers drawn differ between versions."""
    steps = torch.arange(2 * MEL_BINS * FRAMES, dtype=torch.float32)
    features = torch.sin(0.37 * steps + 0.001 * steps**1.5).reshape(2, MEL_BINS, FRAMES)
    labels = torch.tensor([[52, 54, 55, 7, 11, 13, 50], [52, 54, 55, 29, 50, -100, -100]])
    with torch.no_grad():
        output = model(features, labels=labels, output_hidden_states=True)
        answers = {
            "encoder": output.encoder_last_hidden_state,
            "logits": output.logits,
            "loss": output.loss,
            "heard": model.generate(features, max_new_tokens=6),
            "in beams": model.generate(features, language="en", task="translate", num_beams=3, max_new_tokens=6),
        }
    model.zero_grad()
    model(features, labels=labels).loss.backward()
    answers["gradient"] = model.model.decoder.layers[0].encoder_attn.k_proj.weight.grad
    return {name: answer.detach().contiguous().clone() for name, answer in answers.items()}


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    student = FastWhisperForConditionalGeneration.from_teacher(golden_teacher(), decoder_layers=2)
    student.save_pretrained(FOLDER)
    for code in FOLDER.glob("*.py"):
        code.unlink()  # that of the package is under test
    save_file(golden_answers(student), ANSWERS)


if __name__ == "__main__":
    main()

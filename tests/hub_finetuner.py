"""What a user of the Hub trains: a program for an environment with transformers, torch, accelerate and peft alone.

    python tests/hub_finetuner.py STUDENT

STUDENT is a folder or a name on the Hub. Prints one line of JSON.
"""

import json
import sys
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, Seq2SeqTrainer, Seq2SeqTrainingArguments


def load(student: str):
    torch.manual_seed(0)
    silent = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "apply_spec_augment": False}
    return AutoModelForSpeechSeq2Seq.from_pretrained(student, trust_remote_code=True, **silent)


def rows_for(model) -> list[dict]:
    shape = (model.config.num_mel_bins, 2 * model.config.max_source_positions)
    generator = torch.Generator().manual_seed(0)
    return [
        {"input_features": torch.randn(shape, generator=generator), "labels": torch.arange(3, 7 + index % 4)}
        for index in range(8)
    ]


def collate(rows: list[dict]) -> dict:
    labels = torch.nn.utils.rnn.pad_sequence([row["labels"] for row in rows], True, -100)
    return {"input_features": torch.stack([row["input_features"] for row in rows]), "labels": labels}


def train(model, processor, folder: str, batch_size: int, accumulation: int, **settings) -> list[float]:
    """The loss and the gradient's norm of each step."""
    trainer = Seq2SeqTrainer(
        model,
        Seq2SeqTrainingArguments(
            folder, per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulation, max_steps=2,
            logging_steps=1, learning_rate=1e-3, report_to=[], use_cpu=True, disable_tqdm=True,
            label_names=["labels"], **settings,
        ),
        train_dataset=rows_for(model),
        data_collator=collate,
        processing_class=processor,
    )  # fmt: skip
    trainer.train()
    return [value for row in trainer.state.log_history if "loss" in row for value in (row["loss"], row["grad_norm"])]


@torch.no_grad()
def logits(model) -> torch.Tensor:
    model.eval()
    return model(input_features=rows_for(model)[0]["input_features"][None], labels=torch.arange(3, 9)[None]).logits


def main(student: str) -> None:
    torch.set_num_threads(1)
    processor = AutoProcessor.from_pretrained(student)
    answers: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        for batch_size, accumulation in ((8, 1), (2, 4)):
            model = load(student)
            curve = train(model, processor, f"{folder}/{batch_size}", batch_size, accumulation, save_steps=2)
            answers[f"{batch_size} x {accumulation}"] = curve
        saved = load(f"{folder}/2/checkpoint-2")
        answers["checkpoint"] = type(saved).__name__
        answers["checkpoint differs"] = float((logits(saved) - logits(model)).abs().max())

        tuned = get_peft_model(load(student), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
        train(tuned, processor, f"{folder}/lora", 4, 1, save_strategy="no")
        tuned.save_pretrained(f"{folder}/adapter")
        expected, untuned = logits(tuned), logits(load(student))
        reloaded = PeftModel.from_pretrained(load(student), f"{folder}/adapter")
        merged = reloaded.merge_and_unload()
        merged.save_pretrained(f"{folder}/merged")
        answers["LoRA changes"] = float((expected - untuned).abs().max())
        answers["merged differs"] = float((logits(load(f"{folder}/merged")) - expected).abs().max())
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])

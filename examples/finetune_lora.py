"""Fine-tune LoRA adapters on a FastWhisper with peft, load them again, and merge them into a model without peft.

    python examples/finetune_lora.py OWNER/MODEL DATA OUTPUT --max_steps 500

The adapters lie in OUTPUT-adapters and load with `AutoPeftModel.from_pretrained`; OUTPUT is the merged model.
DATA is a dataset on the Hub, or a folder with audio files and a metadata.csv with the columns file_name and text.
"""

import argparse

from peft import AutoPeftModel, LoraConfig, get_peft_model
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, Seq2SeqTrainer, Seq2SeqTrainingArguments

from fastwhisper.data.collator import SpeechCollator
from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.hub_cards.export import export_folder


def main(argv: list[str] | None = None) -> Seq2SeqTrainer:
    parser = argparse.ArgumentParser(description="Fine-tune LoRA adapters on a FastWhisper.")
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("output")
    parser.add_argument("--split")
    parser.add_argument("--language", default="en")
    parser.add_argument("--max_steps", type=int, default=500)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    options = parser.parse_args(argv)

    model = AutoModelForSpeechSeq2Seq.from_pretrained(options.model, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(options.model)
    # No task_type: peft's wrapper for sequence-to-sequence models passes input_ids, and speech has none.
    adapters = LoraConfig(r=options.rank, lora_alpha=2 * options.rank, target_modules=["q_proj", "v_proj"])
    model = get_peft_model(model, adapters)
    model.print_trainable_parameters()
    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            output_dir=f"{options.output}-adapters",
            max_steps=options.max_steps,
            learning_rate=options.learning_rate,
            logging_steps=10,
            remove_unused_columns=False,  # the collator reads the columns audio and text
            label_names=["labels"],  # the wrapper hides the names of the model's arguments
            report_to="none",
        ),
        train_dataset=load_speech_dataset(options.data, split=options.split),
        data_collator=SpeechCollator(processor, language=options.language),
    )
    trainer.train()
    trainer.save_model()  # the adapters alone
    merged = AutoPeftModel.from_pretrained(trainer.args.output_dir).merge_and_unload()
    export_folder(merged, processor, options.output)
    return trainer


if __name__ == "__main__":
    main()

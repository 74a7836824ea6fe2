"""Fine-tune a FastWhisper, or any Whisper, with the stock `Seq2SeqTrainer` of transformers.

    python examples/finetune_seq2seq_trainer.py OWNER/MODEL DATA OUTPUT --max_steps 500

DATA is a dataset on the Hub, or a folder with audio files and a metadata.csv with the columns file_name and text.
The loss of a FastWhisper counts every target token once, whatever the gradient accumulation.
"""

import argparse

from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, Seq2SeqTrainer, Seq2SeqTrainingArguments

from fastwhisper.data.collator import SpeechCollator
from fastwhisper.data.loading import load_speech_dataset


def main(argv: list[str] | None = None) -> Seq2SeqTrainer:
    parser = argparse.ArgumentParser(description="Fine-tune a FastWhisper with Seq2SeqTrainer.")
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("output")
    parser.add_argument("--split")
    parser.add_argument("--language", default="en")
    parser.add_argument("--max_steps", type=int, default=500)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=4)
    parser.add_argument("--learning_rate", type=float, default=1e-5)
    options = parser.parse_args(argv)

    # With trust_remote_code the model's own class is loaded: the loss of plain Whisper is wrong under accumulation.
    model = AutoModelForSpeechSeq2Seq.from_pretrained(options.model, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(options.model)
    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            output_dir=options.output,
            max_steps=options.max_steps,
            per_device_train_batch_size=options.batch_size,
            gradient_accumulation_steps=options.accumulation,
            learning_rate=options.learning_rate,
            warmup_steps=0.1,
            logging_steps=10,
            remove_unused_columns=False,  # the collator reads the columns audio and text
            report_to="none",
        ),
        train_dataset=load_speech_dataset(options.data, split=options.split),
        data_collator=SpeechCollator(processor, language=options.language),
        processing_class=processor,
    )
    trainer.train()
    trainer.save_model()
    return trainer


if __name__ == "__main__":
    main()

"""What is measured of a model: errors clip by clip, calibration, invented words, speed."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jiwer
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor, WhisperTokenizer

from fastwhisper.data.audio import load_audio
from fastwhisper.data.label_encoding import plain_text
from fastwhisper.data.row_store import RowStore
from fastwhisper.evaluation.normalizers import text_normalizer
from fastwhisper.modeling.waveforms import SAMPLING_RATE
from fastwhisper.progress import progress_bar
from fastwhisper.transcription.decoding import GenerationOptions, generate_transcripts

from .calibration import expected_calibration_error
from .config import Measuring, Source
from .decoding import all_texts, confidences
from .inventions import speechless_clips
from .place import Place
from .speech_sets import Clip, Ear
from .splits import load_rows


class Measures:
    """Measures models on the same clips, which are read once.

    Args:
        place (`Place`): where data sets are, and what encoders make of their clips is kept.
        measuring (`Measuring`): how.
    """

    def __init__(self, place: Place, measuring: Measuring) -> None:
        self._place, self._measuring = place, measuring
        self._clips: dict[Source, list[Clip]] = {}
        self._speechless: dict[str | None, dict[str, list[Clip]]] = {}

    def clips(self, source: Source) -> list[Clip]:
        """The clips of a source that have a text."""
        if source not in self._clips:
            rows: Any = load_rows(source, self._place)
            self._clips[source] = [Clip.of_row(row, source.language) for row in rows if row["text"]]
        return self._clips[source]

    def speechless(self, language: str | None) -> dict[str, list[Clip]]:
        """Clips without speech, by kind."""
        if language not in self._speechless:
            self._speechless[language] = speechless_clips(self._measuring, self._place, language)
        return self._speechless[language]

    def ear(self, model: WhisperForConditionalGeneration, processor: WhisperProcessor, frozen: bool) -> Ear:
        """A model's encoder; `frozen` is one that other models have as well, whose output is kept."""
        return Ear(model, processor, RowStore(self._place.work / "encoder_states") if frozen else None)

    def on_set(self, ear: Ear, source: Source, planted: dict[str, str] | None = None) -> dict[str, Any]:
        """Errors of every clip of a set and in all, and the calibration error.

        Args:
            planted (`dict[str, str]`, *optional*): words whose errors are counted apart, each with that for which a
                teacher mistakes it.
        """
        clips = self.clips(source)
        sure, right = [], []
        with progress_bar() as bar:
            task = bar.add_task(f"measuring on {source.data}", total=len(clips))

            def ask_for_confidences(batch: list[Clip], encoded: Any) -> None:
                found = confidences(ear, batch, encoded)
                sure.append(found[0])
                right.append(found[1])
                bar.advance(task, len(batch))

            hypotheses = self._texts(ear, clips, ask_for_confidences)
        measured = count_clips(clips, hypotheses, ear.processor.tokenizer, planted)
        error = expected_calibration_error(torch.cat(sure).numpy(), torch.cat(right).numpy(), self._measuring.bins)
        return {**measured, "ece": error, "token_accuracy": torch.cat(right).float().mean().item()}

    def _texts(
        self, ear: Ear, clips: Sequence[Clip], beside: Callable[[list[Clip], Any], None] | None = None
    ) -> list[str]:
        return all_texts(ear, clips, self._measuring.batch_size, self._measuring.most_tokens, beside)

    def inventions(self, ear: Ear, language: str | None) -> dict[str, float]:
        """Words a minute that a model writes where nobody speaks, by kind."""
        found, normalize = {}, text_normalizer(language, ear.processor.tokenizer)
        for kind, clips in self.speechless(language).items():
            words = sum(len(normalize(text).split()) for text in self._texts(ear, clips))
            found[kind] = words / (sum(clip.samples for clip in clips) / SAMPLING_RATE / 60)
        return found

    def speed(
        self, model: WhisperForConditionalGeneration, processor: WhisperProcessor, source: Source
    ) -> dict[str, float]:
        """Seconds of work for a second of speech, clip by clip, from samples to text."""
        clips = self.clips(source)[:: max(1, len(self.clips(source)) // max(1, self._measuring.speed_clips))]
        clips = clips[: self._measuring.speed_clips]
        options = GenerationOptions(language=clips[0].language, batch_size=1)
        audio = [load_audio(clip.audio) for clip in clips]
        generate_transcripts(model, processor, audio[:1], options)
        begun = time.perf_counter()
        for samples in audio:
            generate_transcripts(model, processor, [samples], options)
        seconds = time.perf_counter() - begun
        spoken = sum(map(len, audio)) / SAMPLING_RATE
        return {"clips": len(clips), "seconds": seconds, "real_time_factor": seconds / spoken}


def count_clips(
    clips: Sequence[Clip],
    hypotheses: Sequence[str],
    tokenizer: WhisperTokenizer,
    planted: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Word errors of a set in all, and of every clip; texts are normalised as `evaluate` does.

    Of `planted` words those in the references are counted, those of them that are not recognised, and those that are
    taken for the word that the teacher takes them for.
    """
    normalizers = {language: text_normalizer(language, tokenizer) for language in {clip.language for clip in clips}}
    totals = {"substitutions": 0, "deletions": 0, "insertions": 0}
    apart = {"words": 0, "errors": 0, "as_the_teacher": 0}
    errors, words = [], []
    for clip, hypothesis in zip(clips, hypotheses, strict=True):
        normalize = normalizers[clip.language]
        aligned = jiwer.process_words(normalize(plain_text(clip.text, clip.language)), normalize(hypothesis))
        for name in totals:
            totals[name] += getattr(aligned, name)
        errors.append(aligned.substitutions + aligned.deletions + aligned.insertions)
        words.append(aligned.substitutions + aligned.deletions + aligned.hits)
        if planted:
            _count_planted(aligned, planted, apart)
    found = {"wer": sum(errors) / max(1, sum(words)), **totals, "errors": errors, "words": words}
    return {**found, "planted": apart} if planted else found


def _count_planted(aligned: jiwer.WordOutput, planted: dict[str, str], counts: dict[str, int]) -> None:
    reference, hypothesis = aligned.references[0], aligned.hypotheses[0]
    for chunk in aligned.alignments[0]:
        for offset in range(chunk.ref_end_idx - chunk.ref_start_idx):
            word = reference[chunk.ref_start_idx + offset]
            if word not in planted:
                continue
            counts["words"] += 1
            counts["errors"] += chunk.type != "equal"
            written = hypothesis[chunk.hyp_start_idx + offset] if chunk.type == "substitute" else None
            counts["as_the_teacher"] += written == planted[word]

"""Which heads follow the audio: planted attentions, and the model afterwards as it was."""

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from fastwhisper.errors import InputError
from fastwhisper.evaluation.alignment import _path_scores, measure_alignment_heads

from ..recordings import noise, tiny_processor
from ..tiny_models import tiny_whisper

TOKENS, FRAMES = 12, 60
TEXTS = ["turn on the lamp", "never mind"]


def following(sharpness=1.0):
    """Attention `(tokens, frames)` of a head that looks at each token's own place, further on with every token."""
    places = torch.linspace(2, FRAMES - 3, TOKENS)[:, None]
    return torch.softmax(-sharpness * (torch.arange(FRAMES) - places) ** 2 / 8, dim=-1)


def uniform():
    return torch.full((TOKENS, FRAMES), 1 / FRAMES)


def stuck():
    """A head that looks at one frame, whatever is said."""
    attention = torch.full((TOKENS, FRAMES), 0.01 / (FRAMES - 1))
    attention[:, 20] = 0.99
    return attention


def random(seed):
    return torch.softmax(torch.randn(TOKENS, FRAMES, generator=torch.Generator().manual_seed(seed)), dim=-1)


def backwards():
    return following().flip(0)


def test_the_head_that_follows_scores_far_above_all_others():
    others = [uniform(), stuck(), random(0), random(1), backwards()]
    scores = _path_scores(torch.stack([following(), *others])[None], filter_width=7)[0]
    assert scores.shape == (6,)
    assert scores[0] > 2.0
    assert all(score < scores[0] / 2 for score in scores[1:].tolist())
    assert scores[1:3].abs().max() < 0.1


def test_each_head_has_its_place():
    attentions = torch.stack([uniform() for _ in range(6)]).view(2, 3, TOKENS, FRAMES).clone()
    attentions[1, 2] = following(0.3)
    scores = _path_scores(attentions, filter_width=7)
    assert scores.argmax() == 5 and scores.flatten()[:5].abs().max() < 0.1


def plant(monkeypatch, model, heads):
    """Make the heads `(layer, head)` of a model follow, and the rest look about."""
    forward = type(model).forward

    def planted(self, features, **inputs):
        outputs = forward(self, features, **inputs)
        assert self.config._attn_implementation == "eager"
        attentions = []
        for layer, attention in enumerate(outputs.cross_attentions):
            attention = torch.softmax(torch.randn(attention.shape), dim=-1)
            _, count, tokens, frames = attention.shape
            places = torch.linspace(0, 30, tokens)[:, None]
            diagonal = torch.softmax(-((torch.arange(frames) - places) ** 2) / 8, dim=-1)
            for head in range(count):
                if (layer, head) in heads:
                    attention[0, head] = diagonal
            attentions.append(attention)
        outputs.cross_attentions = tuple(attentions)
        return outputs

    monkeypatch.setattr(type(model), "forward", planted)


@pytest.mark.parametrize("heads", [[(2, 1)], [(0, 3), (3, 0)]])
def test_planted_heads_are_found(teacher, demo_tokenizer, monkeypatch, heads):
    torch.manual_seed(0)
    plant(monkeypatch, teacher, heads)
    clips = [noise(1.0, 1), noise(0.8, 2)]
    found = measure_alignment_heads(teacher, tiny_processor(demo_tokenizer), clips, TEXTS, "en")
    assert found == [list(head) for head in heads]


def test_a_real_pass_gives_heads_of_the_model_and_leaves_it_as_it_was(teacher, demo_tokenizer):
    teacher.set_attn_implementation("sdpa")
    before = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    clips = [noise(0.01, 1), noise(2.6, 2)]  # shorter than a frame, longer than the window
    found = measure_alignment_heads(teacher, tiny_processor(demo_tokenizer), clips, TEXTS, share_of_best=0.5)
    assert found and all(layer < 4 and head < 4 for layer, head in found)
    assert teacher.config._attn_implementation == teacher.model.decoder.config._attn_implementation == "sdpa"
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.state_dict().items())
    teacher.generation_config.alignment_heads = found  # in the form that the generation config takes


def test_attention_is_restored_after_an_error(teacher, demo_tokenizer, monkeypatch):
    teacher.set_attn_implementation("sdpa")

    def fail(self, *args, **kwargs):
        raise RuntimeError("no memory")

    monkeypatch.setattr(WhisperForConditionalGeneration, "forward", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        measure_alignment_heads(teacher, tiny_processor(demo_tokenizer), [noise(0.5)], TEXTS[:1])
    assert teacher.config._attn_implementation == "sdpa"


def test_what_does_not_fit_is_refused(teacher, demo_tokenizer):
    with pytest.raises(ValueError, match="shorter|longer"):
        measure_alignment_heads(teacher, tiny_processor(demo_tokenizer), [noise(0.5)], TEXTS)
    with pytest.raises(InputError, match="400 frames of 80 mel bins, the model takes 200"):
        foreign = tiny_whisper(demo_tokenizer, seconds=2)
        measure_alignment_heads(foreign, tiny_processor(demo_tokenizer, seconds=4), [noise(0.5)], TEXTS[:1])

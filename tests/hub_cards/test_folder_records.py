"""What a folder says about itself, without a path of the machine it lies on."""

import pytest

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.evaluation.public_records import make_public
from fastwhisper.hub_cards.folder_records import count_parameters


def test_parameters_are_counted_from_the_weights(saved_student):
    student = FastWhisperForConditionalGeneration.from_pretrained(saved_student)

    assert count_parameters(saved_student) == student.num_parameters()


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("--model /home/me/runs/student --data ~/d/x.csv", "--model student --data x.csv"),
        ("--out=/tmp/o.json 'C:\\Users\\me\\x'", "--out=o.json 'x'"),
        ("https://huggingface.co/a/b a/b ./c/d 1/2", "https://huggingface.co/a/b a/b ./c/d 1/2"),
    ],
)
def test_paths_of_a_machine_are_cut(text, public):
    assert make_public({"command": [text]}) == {"command": [public]}

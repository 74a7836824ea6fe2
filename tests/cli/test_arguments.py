"""From a command line and a recipe to dataclasses."""

from dataclasses import dataclass, field

import pytest

from fastwhisper.cli.arguments import Verb, given
from fastwhisper.errors import InputError


@dataclass
class First:
    data: str
    count: int = 3
    rate: float | None = None
    quick: bool = True
    kinds: list[str] = field(default_factory=lambda: ["txt"])


@dataclass
class Second:
    name: str | None = None
    extra: dict | str | None = None
    frozen: bool | None = None


@pytest.fixture
def parse(tmp_path):
    def parse(*argv, recipe=None, classes=(First,), positional=None):
        if recipe is not None:
            (tmp_path / "recipe.yaml").write_text(recipe)
            argv = (*argv, "--config", str(tmp_path / "recipe.yaml"))
        return Verb("fastwhisper verb", "", "", classes, positional).parse(argv)

    return parse


def test_flags_to_dataclasses(parse):
    words = ("--data", "d", "--count=-1", "--rate", "1e-4", "--no_quick", "--kinds", "srt", "vtt", "--name", "n")
    first, second = parse(*words, classes=(First, Second))
    assert first == First("d", -1, 1e-4, False, ["srt", "vtt"]) and second == Second("n")
    assert parse("--data", "d") == (First("d"),)


@pytest.mark.parametrize(
    ("words", "frozen"),
    [([], None), (["--frozen"], True), (["--frozen", "--name", "n"], True), (["--frozen", "false"], False)],
)
def test_a_switch_that_may_be_undecided(parse, words, frozen):
    assert parse("--data", "d", *words, classes=(First, Second))[1].frozen is frozen


def test_a_recipe_fills_in_and_flags_override_it(parse):
    recipe = "data: folder\ncount: 7\nrate: 1e-4\nquick: false\nkinds: [srt, json]\nname: null\n"
    assert parse(recipe=recipe, classes=(First, Second)) == (
        First("folder", 7, 1e-4, False, ["srt", "json"]),
        Second(),
    )
    (first,) = parse("--count", "1", "--quick", "true", "--kinds", "txt", recipe="data: d\ncount: 2\nquick: false\n")
    assert first == First("d", 1, None, True, ["txt"])


def test_a_recipe_says_things_that_flags_cannot(parse):
    first, second = parse(recipe="data: --odd name\nextra: {min_lr: 0.1}\ncount: -2", classes=(First, Second))
    assert first.data == "--odd name" and first.count == -2
    assert second.extra == '{"min_lr": 0.1}'


def test_a_recipe_by_equals_sign(parse, tmp_path):
    (tmp_path / "mine.yaml").write_text("data: ä\n", encoding="utf-8")
    assert parse(f"--config={tmp_path / 'mine.yaml'}", "--count", "2") == (First("ä", 2),)


def test_positional_values_from_the_line_or_the_recipe(parse):
    files = ("files", "audio")
    assert parse("a", "b", "--data", "d", positional=files) == (["a", "b"], First("d"))
    assert parse(recipe="data: d\nfiles: [a, b]", positional=files) == (["a", "b"], First("d"))
    assert parse(recipe="data: d\nfiles: a", positional=files) == (["a"], First("d"))
    assert parse("b", recipe="data: d\nfiles: a", positional=files) == (["b"], First("d"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "required: --data"),
        (("--data", "d", "--cuont", "3"), "unknown arguments: --cuont 3"),
        (("--data", "d", "--coun", "3"), "unknown arguments: --coun 3"),
        (("--data", "d", "stray"), "unknown arguments: stray"),
        (("--data", "d", "--count", "many"), "argument --count: invalid int value: 'many'"),
        (("--data", "d", "--config"), "--config needs the path"),
        (("--data", "d", "--config="), "--config needs the path"),
    ],
)
def test_a_wrong_line_names_the_word_and_the_help(parse, words, said):
    with pytest.raises(InputError, match=said) as error:
        parse(*words)
    assert "see fastwhisper verb --help" in str(error.value)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("data: d\ncuont: 3", "unknown key 'cuont'"),
        ("- data\n- d", "must map flags to values"),
        ("", "must map flags to values"),
        ("data: [unclosed", "recipe.yaml cannot be read"),
        ("data: d\ncount: many", "invalid int value: 'many'"),
    ],
)
def test_a_wrong_recipe_is_refused(parse, recipe, said):
    with pytest.raises(InputError, match=said):
        parse(recipe=recipe)


def test_an_unreadable_recipe_is_named(parse, tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing.yaml", tmp_path, tmp_path / "binary.yaml"):
        with pytest.raises(InputError, match=f"the recipe {path} cannot be read"):
            parse("--config", str(path))


def test_no_file_beside_the_program_is_read(parse, tmp_path, monkeypatch):
    (tmp_path / "program.args").write_text("--count 9")
    monkeypatch.setattr("sys.argv", [str(tmp_path / "program.py")])
    assert parse("--data", "d") == (First("d"),)


def test_a_switch_does_not_take_the_file_behind_it(parse):
    files, first = parse("--quick", "a.wav", "--data", "d", positional=("files", "audio"))
    assert first == First("d", quick=True) and files == ["a.wav"]
    files, first = parse("b.wav", "--quick", "false", "--data", "d", positional=("files", "audio"))
    assert first == First("d", quick=False) and files == ["b.wav"]


def test_what_is_given_becomes_keyword_arguments():
    assert given(Second(name="n")) == {"name": "n"}
    assert given(First("d")) == {"data": "d", "count": 3, "quick": True, "kinds": ["txt"]}


@dataclass
class Checked:
    """Checked."""

    share: float = 0.5

    def __post_init__(self):
        if not 0 <= self.share <= 1:
            raise ValueError(f"share={self.share} is no share")


def test_a_value_that_a_group_refuses_is_an_error_of_input(parse):
    with pytest.raises(InputError, match="share=2.0 is no share; see fastwhisper verb --help"):
        parse("--share", "2", classes=(Checked,))

"""The house has floors: an import never runs upwards, nothing goes in circles, no module is reached by a string."""

import re
import sys
from pathlib import Path

import pytest

import fastwhisper
from fastwhisper.cli.main import VERBS
from fastwhisper.hub_cards.remote_code import ALLOWED_PACKAGES, SHIPPED_ROOMS

from .import_graph import circles, imports_of, modules_of, string_imports_of

PACKAGE = Path(fastwhisper.__file__).parent
CONTRIBUTING = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")

GROUND = ("errors", "files", "model_folders", "progress")
# Room to the rooms that it may import: these, and what these may import. `fastwhisper` is the face, __init__.py.
FLOORS: dict[str, tuple[str, ...]] = {
    "configuration": (),
    "modeling": ("configuration",),
    "data": ("modeling", *GROUND),
    "transcription": ("data",),
    "evaluation": ("transcription",),
    "labelling": ("evaluation",),
    "hub_cards": ("evaluation",),
    "trainers": ("hub_cards",),
    "conversion": ("hub_cards",),
    "synthetic_speech": ("data",),
    "demo": ("trainers", "synthetic_speech"),
    "registration": ("modeling",),
    "fastwhisper": ("labelling", "conversion", "demo", "registration"),
    "cli": ("fastwhisper",),
    "__main__": ("cli",),
    "errors": (),
    "files": ("errors",),
    "model_folders": ("errors",),
    "progress": ("errors",),
}
# Where a module may be found by its name: the public names, and the verbs of the command line.
BY_STRING = {"fastwhisper", "fastwhisper.cli.main"}


def room(module):
    """`fastwhisper.data.audio` is in `data`; `fastwhisper` itself is the face."""
    return (module.split(".") + ["fastwhisper"])[1] if "." in module else "fastwhisper"


def below(name):
    """All rooms that a room may import."""
    return {lower for named in FLOORS[name] for lower in (named, *below(named))}


def own_imports(package):
    """Imports of the package by itself. The version number is no import: it stands in the face, for every room."""
    found = [one for one in imports_of(package) if one.imported.split(".")[0] == package.name]
    return [one for one in found if (one.imported, one.name) != (package.name, "__version__")]


def upward(package):
    """What is wrong: importer, line, and the module that it may not import."""
    return [
        f"{one.importer}, line {one.line}: {one.imported}"
        for one in own_imports(package)
        if room(one.importer) != room(one.imported) and room(one.imported) not in below(room(one.importer))
    ]


def test_every_module_has_a_room():
    assert {room(module) for module in modules_of(PACKAGE)} == set(FLOORS)


def test_no_import_runs_upwards():
    assert upward(PACKAGE) == []


def test_no_circle_of_rooms():
    assert circles((room(one.importer), room(one.imported)) for one in own_imports(PACKAGE)) == []


def test_no_circle_of_modules_while_they_are_imported():
    assert circles((one.importer, one.imported) for one in own_imports(PACKAGE) if one.at_start) == []


def test_no_module_is_reached_by_a_string():
    assert [place for place in string_imports_of(PACKAGE) if place[0] not in BY_STRING] == []


def test_the_strings_that_remain_lead_downwards():
    modules = set(modules_of(PACKAGE))
    public = {f"fastwhisper.{module}" for module in fastwhisper._PUBLIC.values()}
    assert public <= modules and {room(module) for module in public} <= below("fastwhisper")
    assert {f"fastwhisper.cli.{verb.replace('-', '_')}" for verb in VERBS} <= modules
    for name in fastwhisper._PUBLIC:
        assert getattr(fastwhisper, name).__name__ == name
    assert set(fastwhisper._PUBLIC) | {"__version__"} == set(fastwhisper.__all__)
    seen_by_type_checkers = {
        one.name for one in own_imports(PACKAGE) if one.importer == "fastwhisper" and not one.at_start
    }
    assert seen_by_type_checkers >= set(fastwhisper._PUBLIC)


def test_shipped_rooms_import_what_every_user_of_transformers_has():
    foreign = {
        f"{one.importer}, line {one.line}: {one.imported}"
        for one in imports_of(PACKAGE)
        if room(one.importer) in SHIPPED_ROOMS
        and one.imported.split(".")[0] not in {"fastwhisper", *ALLOWED_PACKAGES, *sys.stdlib_module_names}
    }
    assert foreign == set()
    # The last two are what transformers itself stands on.
    assert {"torch", "transformers", "numpy", "huggingface_hub", "safetensors", "tokenizers"} == ALLOWED_PACKAGES


def test_the_table_of_contributing_is_this_one():
    rows = re.findall(r"^\| (`.*?) \| .*? \| (.*?) \|$", CONTRIBUTING, re.MULTILINE)
    table = {}
    for rooms, allowed in rows:
        for name in names_in(rooms):
            table[name] = set(names_in(allowed))
    assert table == {name: set(allowed) for name, allowed in FLOORS.items()}


def names_in(cell):
    names = [name.removesuffix("/").removesuffix(".py") for name in re.findall(r"`([\w./]+)`", cell)]
    return ["fastwhisper" if name == "__init__" else name for name in names]


# ---- the reader itself, on a package with every kind of fault ----


@pytest.fixture
def house(tmp_path):
    """Write files into a package named fastwhisper."""

    def write(**sources):
        for name, source in sources.items():
            path = tmp_path / "fastwhisper" / f"{name.replace('__', '/', 1)}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            for folder in (tmp_path / "fastwhisper", path.parent):
                (folder / "__init__.py").touch()
            path.write_text(source)
        return tmp_path / "fastwhisper"

    return write


@pytest.mark.parametrize(
    "source",
    [
        "from ..evaluation.metrics import rate",
        "from ..evaluation import metrics",
        "from .. import evaluation",
        "from fastwhisper.evaluation.metrics import rate",
        "from fastwhisper.evaluation import metrics as m",
        "import fastwhisper.evaluation.metrics",
        "def f():\n    from ..evaluation.metrics import rate",
        "class C:\n    def f(self):\n        import fastwhisper.evaluation.metrics as m",
        "if TYPE_CHECKING:\n    from ..evaluation.metrics import rate",
        "try:\n    import json\nexcept ImportError:\n    from ..evaluation.metrics import rate",
        "from .. import ASKDTrainer",
        "import fastwhisper",
    ],
)
def test_an_upward_import_is_seen_wherever_it_is(house, source):
    package = house(data__audio=source, evaluation__metrics="rate = 1")

    (line,) = upward(package)
    assert line.startswith("fastwhisper.data.audio, line ")


def test_what_is_allowed_is_let_through(house):
    package = house(
        data__audio="from .. import __version__\nfrom ..errors import InputError\nfrom .folders import f\nimport json",
        data__folders="f = 1",
        errors="class InputError(ValueError): pass",
        cli__slm="def main():\n    from ..data.audio import f",
    )
    assert upward(package) == [] == string_imports_of(package)


@pytest.mark.parametrize(
    "source",
    [
        'import importlib\nimportlib.import_module("fastwhisper.evaluation.metrics")',
        'from importlib import import_module\ndef f():\n    return import_module("..evaluation.metrics", __package__)',
        '__import__("fastwhisper.evaluation.metrics")',
        'import sys\nsys.modules["fastwhisper.evaluation.metrics"].rate',
    ],
)
def test_a_module_reached_by_a_string_is_seen(house, source):
    package = house(data__audio=source, evaluation__metrics="rate = 1")

    assert {module for module, _ in string_imports_of(package)} == {"fastwhisper.data.audio"}


def test_circles_are_seen_and_later_imports_are_none(house):
    package = house(
        data__a="from .b import x",
        data__b="from .c import x",
        data__c="from .a import x",
        data__d="def f():\n    from .a import x\nif TYPE_CHECKING:\n    from .e import x",
        data__e="from .d import x",
    )
    edges = [(one.importer[-1], one.imported[-1]) for one in own_imports(package) if one.at_start]
    assert circles(edges) == [["a", "b", "c"]]
    assert circles([("a", "b"), ("b", "c"), ("d", "c"), ("d", "a")]) == []

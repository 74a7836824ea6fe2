"""The files around the package say the same of it: versions, pins, commands, links."""

import re
import sys
from pathlib import Path

import pytest
import yaml

import fastwhisper

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli", reason="Python 3.10 reads TOML with tomli")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
JOBS = yaml.safe_load(WORKFLOW)["jobs"]


def commands(job):
    return [step["run"] for step in JOBS[job]["steps"] if "run" in step]


def test_ci_run_has_the_test_command_of_the_readme():
    (command,) = re.findall(r"^TEST_COMMAND='(.*)'$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert f"{command}\n" in blocks


def test_the_workflow_checks_what_ci_run_checks():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    checks = {"ruff check .", "ruff format --check .", "mypy"}
    assert checks <= set(lines) and checks <= set(commands("lint"))
    assert "python -m pytest" in commands("tests")


def test_actions_are_pinned_by_commit():
    used = re.findall(r"uses: (.*)", WORKFLOW)
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", one) for one in used)


def test_every_python_and_the_lowest_transformers_are_tried():
    matrix = JOBS["tests"]["strategy"]["matrix"]
    classified = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if " :: Python :: 3." in line]
    assert matrix["python"] == classified and PROJECT["project"]["requires-python"] == f">={classified[0]}"
    (lowest,) = re.findall(r"transformers>=([\d.]+),", str(PROJECT["project"]["dependencies"]))
    assert {one["transformers"] for one in matrix["include"]} == {"lowest", "newest"}
    assert f'pip install "transformers=={lowest}.0"' in commands("tests")


def test_the_citation_has_the_version_and_both_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == fastwhisper.__version__ and citation["license"] == PROJECT["project"]["license"]
    cited = {identifier["value"] for one in citation["references"] for identifier in one["identifiers"]}
    assert {"arXiv:2601.19919", "arXiv:2601.06199"} <= cited


def test_the_changelog_begins_with_what_is_to_be_released():
    first, *released = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first == "Unreleased" and all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in released)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_into_the_tree_lead_somewhere(name):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []

"""The wheel: what is in it, and that the program runs from it. Built offline with the setuptools at hand."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.version import Version

import fastwhisper

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: setuptools leaves a folder `build` beside the sources and takes old files from there."""
    try:
        version = metadata.version("setuptools")
    except metadata.PackageNotFoundError:
        pytest.skip("needs setuptools: pip install setuptools")
    if Version(version) < Version("77"):
        pytest.skip(f"needs setuptools 77 to build, here is {version}")
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("fastwhisper", "tests", "examples", "benchmarks"):
        shutil.copytree(ROOT / name, folder / "sources" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "sources")
    command = [sys.executable, "-c", BUILD, str(folder)]
    done = subprocess.run(command, cwd=folder / "sources", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / done.stdout.splitlines()[-1]


def test_it_holds_the_package_whole_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = (path for path in (ROOT / "fastwhisper").rglob("*") if path.is_file() and "__pycache__" not in path.parts)

    records = f"fastwhisper-{fastwhisper.__version__}.dist-info/"
    assert {name for name in names if not name.startswith(records)} == {
        path.relative_to(ROOT).as_posix() for path in files
    }
    assert {
        "fastwhisper/py.typed",
        "fastwhisper/assets/demo_teacher/model.safetensors",
        "fastwhisper/hub_cards/templates/fastwhisper.md",
        "fastwhisper/hub_cards/templates/fastslm.md",
        f"{records}licenses/LICENSE",
    } <= names


def test_its_metadata_is_that_of_the_project(wheel):
    archive = zipfile.ZipFile(wheel)
    records = f"fastwhisper-{fastwhisper.__version__}.dist-info/"
    said = archive.read(f"{records}METADATA").decode()

    assert f"\nVersion: {fastwhisper.__version__}\n" in said and "\nLicense-Expression: Apache-2.0\n" in said
    assert "fastwhisper = fastwhisper.cli.main:main" in archive.read(f"{records}entry_points.txt").decode()


def test_the_program_runs_from_it(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    script = "import fastwhisper; print(fastwhisper.__file__); from fastwhisper.cli.main import main; main(['--help'])"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(tmp_path / "fastwhisper" / "__init__.py")
    assert "usage: fastwhisper VERB" in done.stdout

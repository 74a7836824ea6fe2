"""From a command line and a YAML recipe to dataclasses; a quick `--help` that imports nothing heavy."""

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError

TRUTHS = ("true", "false", "yes", "no", "t", "f", "y", "n", "1", "0")
RECIPE_HELP = "YAML recipe whose keys are the flags below; flags given on the command line override it"


def print_help(
    program: str,
    description: str,
    argument_classes: Sequence[type],
    positional: tuple[str, str] | None,
    epilog: str = "",
) -> None:
    """Print the help of a verb from the fields of its dataclasses."""
    parser = argparse.ArgumentParser(
        prog=program, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if positional:
        parser.add_argument(positional[0], nargs="*", metavar=positional[0].upper(), help=positional[1])
    parser.add_argument("--config", metavar="RECIPE", help=RECIPE_HELP)
    for argument_class in argument_classes:
        for field in dataclasses.fields(argument_class):
            described = field.metadata.get("help", "")
            if field.default is field.default_factory is dataclasses.MISSING:
                described += " (required)"
            elif field.default not in (dataclasses.MISSING, None, ""):
                described += f" (default: {field.default})"
            parser.add_argument(f"--{field.name}", metavar="", help=described.replace("%", "%%"))
    parser.print_help()


def parse_arguments(
    program: str,
    argv: Sequence[str],
    argument_classes: Sequence[Any],
    positional: tuple[str, str] | None = None,
) -> tuple[Any, ...]:
    """One instance per dataclass; a list of positional values comes last where `positional` is given.

    Raises:
        InputError: for an unknown flag, a value of the wrong type, and an unreadable recipe.
    """
    from transformers import HfArgumentParser

    class Parser(HfArgumentParser):
        def error(self, message):
            raise InputError(f"{message}; see {program} --help")

    argv = list(argv)
    recipe = _take_recipe(argv, program)
    parser = Parser(list(argument_classes), prog=program, add_help=False, allow_abbrev=False)
    if positional:
        parser.add_argument(positional[0], nargs="*")
    known = {field.name for argument_class in argument_classes for field in dataclasses.fields(argument_class)}
    named = recipe.pop(positional[0], []) if positional else []
    for key in recipe:
        if key not in known:
            raise InputError(f"the recipe has an unknown key {key!r}; see {program} --help")
    switches = {
        f"--{field.name}"
        for argument_class in argument_classes
        for field in dataclasses.fields(argument_class)
        if field.type is bool
    }
    *parsed, unknown = parser.parse_args_into_dataclasses(
        _with_values([*_as_flags(recipe), *argv], switches), return_remaining_strings=True, look_for_args_file=False
    )
    if unknown:
        raise InputError(f"there is no flag or place for {' '.join(unknown)}; see {program} --help")
    if not positional:
        return tuple(parsed)
    *instances, namespace = parsed
    given = getattr(namespace, positional[0])
    return (*instances, given or ([named] if isinstance(named, str) else named))


def run_parsed(
    program: str,
    description: str,
    argv: Sequence[str],
    argument_class: type,
    verb: Callable[..., Any],
    positional: tuple[str, str] | None = None,
) -> None:
    """Print the help of a verb with one dataclass of arguments, or parse and run it."""
    if any(flag in argv for flag in ("-h", "--help")):
        print_help(program, description, [argument_class], positional)
        return
    parsed, *rest = parse_arguments(program, argv, [argument_class], positional)
    verb(*rest, parsed)


def _with_values(words: Sequence[str], switches: set[str]) -> list[str]:
    """The words with `true` behind each switch that has no value: it would take what follows, such as a file."""
    valued = []
    for index, word in enumerate(words):
        following = words[index + 1] if index + 1 < len(words) else ""
        valued += [word, "true"] if word in switches and following.lower() not in TRUTHS else [word]
    return valued


def _take_recipe(argv: list[str], program: str) -> dict[str, Any]:
    """The settings of the recipe that `--config` names; takes the flag and its value out of `argv`."""
    index = next((i for i, word in enumerate(argv) if word == "--config" or word.startswith("--config=")), None)
    if index is None:
        return {}
    _, joined, value = argv.pop(index).partition("=")
    if not joined:
        value = argv.pop(index) if index < len(argv) else ""
    if not value:
        raise InputError(f"--config needs the path of a YAML recipe; see {program} --help")
    import yaml

    path = Path(value)
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"the recipe {path} cannot be read: {error}") from error
    if not isinstance(recipe, dict):
        raise InputError(f"the recipe {path} must be a mapping of flags to values")
    return recipe


def _as_flags(recipe: dict[str, Any]) -> list[str]:
    """The settings of a recipe as words of a command line; those without a value are left at their defaults."""
    flags = []
    for key, value in recipe.items():
        if isinstance(value, list):
            flags += [f"--{key}", *map(str, value)]
        elif value is not None:
            flags.append(f"--{key}={json.dumps(value) if isinstance(value, dict) else value}")
    return flags

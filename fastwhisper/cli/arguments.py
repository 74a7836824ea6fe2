"""From a command line and a YAML recipe to dataclasses; a quick `--help` that imports nothing heavy."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError

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
            default = field.default if field.default is not dataclasses.MISSING else None
            described = field.metadata.get("help", "")
            if default is not None and default != "":
                described += f" (default: {default})"
            parser.add_argument(f"--{field.name}", metavar="", help=described.replace("%", "%%"))
    parser.print_help()


def parse_arguments(
    program: str,
    argv: Sequence[str],
    argument_classes: Sequence[type],
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
    positionals = recipe.pop(positional[0], []) if positional else []
    for key in recipe:
        if key not in known:
            raise InputError(f"the recipe has an unknown key {key!r}; see {program} --help")
    *parsed, namespace = [*parser.parse_args_into_dataclasses([*_as_flags(recipe), *argv]), None]
    if not positional:
        return tuple(parsed)
    *parsed, extra = parsed
    given = getattr(extra, positional[0])
    return (*parsed, given or ([positionals] if isinstance(positionals, str) else positionals))


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


def _take_recipe(argv: list[str], program: str) -> dict[str, Any]:
    import yaml

    if "--config" not in argv:
        return {}
    index = argv.index("--config")
    if index + 1 == len(argv):
        raise InputError(f"--config needs the path of a YAML recipe; see {program} --help")
    path = Path(argv[index + 1])
    del argv[index : index + 2]
    try:
        recipe = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"the recipe {path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(recipe, dict):
        raise InputError(f"the recipe {path} must be a mapping of flags to values")
    return recipe


def _as_flags(recipe: dict[str, Any]) -> list[str]:
    flags = []
    for key, value in recipe.items():
        values = value if isinstance(value, list) else [value]
        if value is not None:
            flags += [f"--{key}", *(str(item) for item in values)]
    return flags

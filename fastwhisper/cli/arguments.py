"""Parse a command line and a YAML recipe into dataclasses; `--help` is quick, since it imports nothing heavy.

A verb's flags are the fields of a few dataclasses, one per group. Its docstring is the group's title in the help; a
field's metadata holds the help text and, where the type does not say enough, the placeholder (`metavar`).
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from ..errors import InputError

TRUTHS = ("true", "false", "yes", "no", "t", "f", "y", "n", "1", "0")
RECIPE_HELP = "YAML recipe with flags as keys; flags on the command line override it"
TRACEBACK_HELP = "Set FASTWHISPER_TRACEBACK=1 to see the traceback behind a one-line error."


@dataclass(frozen=True)
class Verb:
    """A verb of the program.

    Args:
        program (`str`): how it is called, for example `fastwhisper label`.
        description (`str`): what it does, for `--help`.
        example (`str`): one command that works.
        groups (`Sequence[type]`): dataclasses of its flags.
        positional (`tuple[str, str]`, *optional*): name and help of the words before the flags.
        notes (`str`, *optional*): the end of the help.
    """

    program: str
    description: str
    example: str
    groups: Sequence[Any]
    positional: tuple[str, str] | None = None
    notes: str = ""

    def run(self, argv: Sequence[str], function: Callable[..., int | None]) -> int | None:
        """Print the help, or parse `argv` and call `function` with the positional words and one instance per group."""
        if any(flag in argv for flag in ("-h", "--help")):
            self.print_help()
            return None
        return function(*self.parse(argv))

    def print_help(self) -> None:
        """Print the help from the fields of the groups."""
        parser = argparse.ArgumentParser(
            prog=self.program,
            usage=self._usage(),
            description=self.description,
            epilog="\n\n".join(filter(None, (f"example:\n  {self.example}", self.notes, TRACEBACK_HELP))),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
        )
        if self.positional:
            name, described = self.positional
            parser.add_argument(name, nargs="*", metavar=name.upper(), help=described)
        for group in self.groups:
            flags = parser.add_argument_group((group.__doc__ or "").partition("\n")[0].rstrip(".").lower())
            for field in dataclasses.fields(group):
                shown: Any = {"action": "store_true"} if field.type is bool else {"metavar": _placeholder(field)}
                flags.add_argument(f"--{field.name}", help=_described(field), **shown)
        parser.add_argument_group("recipe").add_argument("--config", metavar="FILE", help=RECIPE_HELP)
        parser.print_help()

    def parse(self, argv: Sequence[str]) -> tuple[Any, ...]:
        """The positional words, if the verb takes any, and one instance per group.

        Raises:
            InputError: for an unknown flag, an invalid value, or an unreadable recipe.
        """
        from transformers import HfArgumentParser

        program = self.program

        class Parser(HfArgumentParser):
            def error(self, message):
                raise InputError(f"{message}; see {program} --help")

        argv = list(argv)
        recipe = _take_recipe(argv, program)
        fields = [field for group in self.groups for field in dataclasses.fields(group)]
        named = recipe.pop(self.positional[0], []) if self.positional else []
        for key in recipe:
            if key not in {field.name for field in fields}:
                raise InputError(f"the recipe has an unknown key {key!r}; see {program} --help")
        parser = Parser(list(self.groups), prog=program, add_help=False, allow_abbrev=False)
        if self.positional:
            parser.add_argument(self.positional[0], nargs="*")
        switches = {f"--{field.name}" for field in fields if field.type in (bool, bool | None)}
        words = _with_values([*_as_flags(recipe), *argv], switches)
        try:
            *parsed, unknown = parser.parse_args_into_dataclasses(
                words, return_remaining_strings=True, look_for_args_file=False
            )
        except InputError:
            raise
        except (ValueError, ImportError) as error:
            # TrainingArguments checks itself: a precision that the device lacks, a package that is not installed.
            raise InputError(f"{' '.join(str(error).split())}; see {program} --help") from error
        if unknown:
            raise InputError(f"unknown arguments: {' '.join(unknown)}; see {program} --help")
        if not self.positional:
            return tuple(parsed)
        *instances, namespace = parsed
        given = getattr(namespace, self.positional[0])
        return (given or ([named] if isinstance(named, str) else named), *instances)

    def _usage(self) -> str:
        words = [self.program]
        if self.positional:
            words.append(f"{self.positional[0].upper()} ...")
        required = [field for group in self.groups for field in dataclasses.fields(group) if _is_required(field)]
        return " ".join([*words, *(f"--{field.name} {_placeholder(field)}" for field in required), "[OPTIONS]"])


def given(arguments: Any) -> dict[str, Any]:
    """The fields of a group that have a value, as keyword arguments."""
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(arguments)}
    return {name: value for name, value in values.items() if value is not None}


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _described(field: dataclasses.Field) -> str:
    described = field.metadata.get("help", "")
    if _is_required(field):
        described += " (required)"
    elif field.default is True:
        described += f"; on by default, --no_{field.name} turns it off"
    elif field.default is not False and field.default not in (dataclasses.MISSING, None, ""):
        described += f" (default: {field.default})"
    return described.replace("%", "%%")


def _placeholder(field: dataclasses.Field) -> str:
    """What the help shows for a value: the field's own placeholder, or one that follows from its type."""
    if "metavar" in field.metadata:
        return field.metadata["metavar"]
    kinds = [kind for kind in get_args(field.type) or (field.type,) if kind is not type(None)]
    several = get_origin(field.type) is list
    return ("N" if int in kinds else "X" if float in kinds else "NAME") + (" ..." if several else "")


def _with_values(words: Sequence[str], switches: set[str]) -> list[str]:
    """The words with `true` after each switch without a value: otherwise it would take the next word, say a file."""
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
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"the recipe {path} cannot be read: {error}") from error
    if not isinstance(recipe, dict):
        raise InputError(f"the recipe {path} must map flags to values")
    return recipe


def _as_flags(recipe: dict[str, Any]) -> list[str]:
    """The settings of a recipe as command-line words; those without a value keep their defaults."""
    flags = []
    for key, value in recipe.items():
        if isinstance(value, list):
            flags += [f"--{key}", *map(str, value)]
        elif value is not None:
            flags.append(f"--{key}={json.dumps(value) if isinstance(value, dict) else value}")
    return flags

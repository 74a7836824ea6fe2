"""Which row of an evaluation is the card's own model, which is its teacher, and which are others."""

from pathlib import Path
from typing import Any

from ..evaluation.saved_weights import weights_sha256


def with_roles(
    evaluation: dict[str, Any], folder: Path, name: str, own_role: str, teacher: str | None
) -> dict[str, Any]:
    """The evaluation with a `role` for the card's own model, one for its teacher, and none for any other model.

    The own row is the one measured on the folder's weights, whatever the folder was called then. A row that
    does not say which weights it was measured on must have the name of the folder or of the model. The teacher's row
    has the name that the folder records. If several rows qualify, none is taken.

    Args:
        evaluation (`dict`): As [`compare_models`] reports it; neither the order nor the roles of its rows count.
        folder (`Path`): Folder of the card.
        name (`str`): The model's name in the card.
        own_role (`str`): The role of the own row: `student` or `model`.
        teacher (`str`, *optional*): Name of the teacher, as the folder records it.
    """
    rows = evaluation.get("models") or []
    own = _own_row(rows, folder, name)
    teachers = [row for row in rows if row is not own and teacher is not None and _place(row) == teacher]

    def role(row: dict[str, Any]) -> str | None:
        if row is own:
            return own_role
        return "teacher" if [row] == teachers else None

    return {**evaluation, "models": [{**row, "role": role(row)} for row in rows]}


def own_model(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The measurements of the card's own model; empty if there are none."""
    return next((row for row in evaluation.get("models", []) if row.get("role") in ("student", "model")), {})


def teacher_model(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The measurements of its teacher; empty if there are none."""
    return next((row for row in evaluation.get("models", []) if row.get("role") == "teacher"), {})


def _own_row(rows: list[dict[str, Any]], folder: Path, name: str) -> dict[str, Any] | None:
    if any(row.get("weights_sha256") for row in rows):
        weights = weights_sha256(folder)
        possible = [row for row in rows if row.get("weights_sha256") in (None, weights)]
        same = [row for row in possible if row.get("weights_sha256")]
        if len(same) == 1:
            return same[0]
        rows = same or possible
    named = [row for row in rows if _place(row) in (folder.resolve().name, name)]
    return named[0] if len(named) == 1 else None


def _place(row: dict[str, Any]) -> str | None:
    """Where a measured model came from: the last component of its folder, or its name on the Hub."""
    return row.get("folder") or row.get("name")

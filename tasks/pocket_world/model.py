"""The shipped models by name; only this module of the room is needed to load one."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

MODEL_FOLDERS = MappingProxyType({"pocket": Path(__file__).parent / "assets" / "model"})
"""Name -> Hugging Face model folder, with the `recipe.json` that it was trained by (`flows/pocket_world.py`)."""


def model_folder() -> Path:
    """The folder of the model that was trained on the pocket world."""
    return MODEL_FOLDERS["pocket"]

"""The shipped model that was trained on the pocket world (`flows/pocket_world.py`)."""

from __future__ import annotations

from pathlib import Path


def model_folder() -> Path:
    """The shipped model: an ordinary Hugging Face folder, with the `recipe.json` that it was made by."""
    return Path(__file__).parent / "assets" / "model"

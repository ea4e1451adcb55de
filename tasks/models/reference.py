"""A model by name, revision and dtype: where it is, how it is configured, and the digest of its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from overedit.tasks.models.weights_digest import folder_digest
from overedit.tasks.pocket_world.model import MODEL_FOLDERS
from overedit.tasks.system.untrusted import error_message, read_plain_file, shown_value

DTYPES = ("auto", "float32", "bfloat16", "float16")
MOST_CONFIG_BYTES = 16 << 20
_BAD_CONFIG = (
    StrictDataclassError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
)  # what transformers raises for a wrong value in config.json


@dataclass(frozen=True)
class ModelReference:
    """A model by name. One object is made for a run and passed to all that load the model or name its weights."""

    name: str = "pocket"
    """A Hugging Face model folder, a hub name (owner/name), or `pocket` (the shipped model)."""
    revision: str | None = None
    """A hub model's branch, tag or commit."""
    dtype: str = "auto"
    """One of `DTYPES`, in which the weights are loaded; `auto` is the dtype that they are stored in."""

    def locate(self) -> str:
        """The folder or hub name that transformers and vLLM load.

        Raises:
            ValueError: The name looks like a folder, and there is none, or it is not a model's, or it holds only
                pickled weights.
        """
        if self.name in MODEL_FOLDERS:
            return str(MODEL_FOLDERS[self.name])
        path = Path(self.name).expanduser()
        if path.is_dir():
            if not (path / "config.json").is_file():
                raise ValueError(
                    f"model: {self.name} is a folder without a config.json; a Hugging Face model folder is needed"
                )
            _check_weights(path)
            return str(path.resolve())
        if path.is_absolute() or self.name.startswith((".", "~")) or self.name.count("/") != 1:
            raise ValueError(
                f"model: there is no folder {self.name}; give a model folder, a hub name (owner/name), or pocket"
            )
        return self.name

    def load_config(self) -> Any:
        """The model's transformers configuration; no weights are read.

        Raises:
            ValueError: There is no such model, or it cannot be reached, or its architecture is unknown, or its
                configuration is damaged, or it needs remote code.
        """
        where = self.locate()
        if Path(where).is_dir():
            self._check_code(_read_json_object(Path(where) / "config.json"))
        try:
            return AutoConfig.from_pretrained(where, revision=self.revision, trust_remote_code=False)
        except OSError as error:
            raise ValueError(
                f"model: {self.name} can be neither found here nor fetched from the hub: {error}"
            ) from error
        except _BAD_CONFIG as error:
            if not Path(where).is_dir():
                self._check_code(PreTrainedConfig.get_config_dict(where, revision=self.revision)[0])
            raise ValueError(
                f"model: the config.json of {self.name} cannot be read: {error_message(error, 300)}"
            ) from error

    @cached_property
    def digest(self) -> str:
        """Digest of the weights: SHA-256 over a folder's weight files, or a hub model's commit.

        It is computed once for this object; unchanged files are not read again in later processes either.

        Raises:
            ValueError: As `load_config`.
        """
        where = Path(self.locate())
        if where.is_dir():
            return folder_digest(where)
        return f"{self.name}@{self.load_config()._commit_hash}"

    def _check_code(self, config: dict[str, Any]) -> None:
        """Refuse a model of an unknown architecture that brings its own code."""
        kind, code = config.get("model_type"), config.get("auto_map")
        if code is not None and not (isinstance(kind, str) and kind in CONFIG_MAPPING):
            raise ValueError(
                f"model: {self.name} asks to run code of its own (auto_map in its config.json: {shown_value(code)}), "
                f"which is never done; its model_type {shown_value(kind)} must be one that transformers has itself"
            )


def _read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a model folder, which is not trusted."""
    content = read_plain_file(path, what="model: the file", most_bytes=MOST_CONFIG_BYTES)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"model: {path} is not JSON: {error_message(error, 300)}") from error
    if not isinstance(found, dict):
        raise ValueError(f"model: {path} holds no JSON object but {shown_value(found)}")
    return found


def _check_weights(folder: Path) -> None:
    """Refuse a folder whose weights exist only as pickles, or whose safetensors files are damaged."""
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    if pickles and not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"model: {folder} holds its weights in {shown_value(pickles[0])}, a pickle, which is not read; "
            "save them as safetensors"
        )
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt"):  # reads the header, and no value
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(f"model: {path} is no whole safetensors file: {error_message(error, 300)}") from error

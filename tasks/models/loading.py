"""Where a model comes from: a folder, a hub name, or `pocket`."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from overedit.tasks.system.untrusted import read_plain_file, shown_value

MOST_CONFIG_BYTES = 16 << 20
_BAD_CONFIG = (
    StrictDataclassError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
)  # what transformers raises where a value of config.json is not what it must be
DTYPES = ("auto", "float32", "bfloat16", "float16")


class LoadedModel(NamedTuple):
    """A model ready to be edited."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def locate(name: str) -> str:
    """The folder or hub name that transformers and vLLM load for a model's name; `pocket` is the shipped one.

    Raises:
        ValueError: The name looks like a folder, and there is none, or it is not a model's, or holds pickles only.
    """
    if name == "pocket":
        from overedit.tasks.pocket_world.model import model_folder

        return str(model_folder())
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(f"model: {name} is a folder without a config.json; a Hugging Face model folder is needed")
        _check_weights(path)
        return str(path.resolve())
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise ValueError(f"model: there is no folder {name}; give a model folder, a hub name (owner/name), or pocket")
    return name


def load_config(name: str, *, revision: str | None = None) -> Any:
    """A model's configuration, without its weights.

    Raises:
        ValueError: There is no such model, or it cannot be reached, or it is of no known architecture, or its
            configuration is damaged, or it is written in code of its own.
    """
    where = locate(name)
    if Path(where).is_dir():
        _check_code(name, _read_json_object(Path(where) / "config.json"))
    try:
        return AutoConfig.from_pretrained(where, revision=revision, trust_remote_code=False)
    except OSError as error:
        raise ValueError(f"model: {name} can be neither found here nor fetched from the hub: {error}") from error
    except _BAD_CONFIG as error:
        if not Path(where).is_dir():
            _check_code(name, PreTrainedConfig.get_config_dict(where, revision=revision)[0])
        raise ValueError(f"model: the config.json of {name} is none that can be read: {_first_words(error)}") from error


def _read_json_object(path: Path) -> dict[str, Any]:
    """A model's file of keys and values; what it says is not believed yet."""
    content = read_plain_file(path, what="model: the file", most_bytes=MOST_CONFIG_BYTES)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"model: {path} is not JSON: {_first_words(error)}") from error
    if not isinstance(found, dict):
        raise ValueError(f"model: {path} holds no JSON object but {shown_value(found)}")
    return found


def _check_code(name: str, config: dict[str, Any]) -> None:
    """Refuse a model that is of no known architecture and brings its own code."""
    kind, code = config.get("model_type"), config.get("auto_map")
    if code is not None and not (isinstance(kind, str) and kind in CONFIG_MAPPING):
        raise ValueError(
            f"model: {name} asks to run code of its own (auto_map in its config.json: {shown_value(code)}), which is "
            f"never done; its model_type {shown_value(kind)} must be one that transformers has itself"
        )


def _check_weights(folder: Path) -> None:
    """Refuse a folder whose weights can be had only by unpickling, or are not what they are called."""
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
            raise ValueError(f"model: {path} is no whole safetensors file: {_first_words(error)}") from error


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def load_model(name: str, *, dtype: str = "auto", revision: str | None = None) -> LoadedModel:
    """Load a model for editing, on the GPU where there is one; no remote code is run.

    Args:
        name: Folder, hub name or `pocket`.
        dtype: One of `DTYPES`; `auto` takes the one its weights are stored in.
        revision: Of a hub model.

    Raises:
        ValueError: There is no such model, or it cannot be reached.
    """
    where = locate(name)
    transformers_logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, revision=revision, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            where, dtype=dtype, revision=revision, trust_remote_code=False, use_safetensors=True
        )
    except OSError as error:
        raise ValueError(f"model: {name} can be neither found here nor fetched from the hub: {error}") from error
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return LoadedModel(model.to(device).eval(), tokenizer)


def weights_digest(name: str, *, revision: str | None = None) -> str:
    """What tells two models' weights apart: SHA-256 of a folder's weight files, or a hub model's commit."""
    where = Path(locate(name))
    if not where.is_dir():
        return f"{name}@{load_config(name, revision=revision)._commit_hash}"
    whole = hashlib.sha256()
    for path in sorted([*where.glob("*.safetensors"), *where.glob("*.bin"), where / "config.json"]):
        with path.open("rb") as file:
            whole.update(f"{path.name}={hashlib.file_digest(file, 'sha256').hexdigest()};".encode())
    return whole.hexdigest()


def context_length(config: Any) -> int:
    """The longest sequence a model was made for, in tokens."""
    return int(getattr(config, "max_position_embeddings", 0) or getattr(config, "n_positions", 1024))


def editing_threads(at_once: int = 1) -> int:
    """Torch threads for editing on a CPU: all cores that this process may use but one, which is left to the servers.

    With several trajectories at once, the share of each.

    A thread too many costs more than it gives: threads wait for one another when another process holds a core.
    """
    return max(1, (len(os.sched_getaffinity(0)) - 1) // at_once)

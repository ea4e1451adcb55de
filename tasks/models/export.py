"""Exports a checkpoint as an ordinary Hugging Face model folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from overedit.editing.model.weights import write_tensors
from overedit.editing.storage.atomic import replace_folder
from overedit.editing.trajectory.checkpoint import DamagedCheckpointError, read_checkpoint
from overedit.tasks.models.beside_weights import check_weights_only
from overedit.tasks.models.loading import load_model
from overedit.tasks.models.reference import DTYPES, ModelReference


def export_checkpoint(folder: Path, out: Path, *, model: str | None = None) -> None:
    """Write base model + checkpoint as a folder that transformers and vLLM load.

    Args:
        folder: The checkpoint's folder.
        out: The folder to write; it must be empty or not exist.
        model: The base model's folder or hub name; None takes the name in the checkpoint.

    Raises:
        ValueError: The checkpoint is damaged, the model is not the edited one, its method keeps the edits beside the
            weights, or `out` is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already; give an empty or a new folder")
    if not folder.is_dir():
        raise ValueError(f"there is no checkpoint folder {folder}")
    checkpoint = read_checkpoint(folder)
    check_weights_only(checkpoint)
    tensors = checkpoint.tensors()
    base = ModelReference(model or checkpoint.record.model)
    if base.digest != checkpoint.record.model_digest:
        raise DamagedCheckpointError(f"model: {base.name} does not have the weights that {folder} was edited from")
    dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}
    if len(dtypes) != 1 or not dtypes <= set(DTYPES):
        found = ", ".join(sorted(dtypes)) or "no dtype at all"
        raise DamagedCheckpointError(f"{folder} holds tensors of {found}; one of {', '.join(DTYPES[1:])} is needed")
    loaded = load_model(replace(base, dtype=dtypes.pop()))
    try:
        write_tensors(loaded.model, tensors)
    except ValueError as error:
        raise DamagedCheckpointError(f"{folder} does not fit {base.name}: {error}") from error
    with replace_folder(out) as temporary:
        loaded.model.save_pretrained(temporary)
        loaded.tokenizer.save_pretrained(temporary)

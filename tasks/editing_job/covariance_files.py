"""Covariance files: one per site, with a record of its model and text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from overedit.editing.methods.locate_then_edit.covariance import SecondMoment
from overedit.editing.model.weights import checksum
from overedit.editing.storage.atomic import replace_file

FORMAT = 1
"""Increased when a code change changes the numbers, so that older files are not read."""
_NAME = "second_moment"
_RECORD = "covariance"
_DTYPES = MappingProxyType({"float32": torch.float32, "float64": torch.float64})


class DamagedCovarianceError(ValueError):
    """A covariance file that cannot be read, or does not match its record."""


class CovarianceRecord(BaseModel):
    """The record of a covariance file."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        ser_json_inf_nan="strings",
        protected_namespaces=(),
    )

    format: int = FORMAT
    site: str
    """The site, or the name of a factor of its curvature."""
    model_digest: str
    """Digest of the model's weights."""
    model_dtype: str
    """The model's dtype while it read the text."""
    corpus: str
    corpus_digest: str
    """Digest of the texts."""
    num_samples: int | None
    """The most texts; None is all."""
    max_length: int
    """The length to which texts were cut, in tokens."""
    dtype: Literal["float32", "float64"]
    """The dtype of the stored matrix."""
    num_tokens: int
    convergence: float
    sha256: str
    """Checksum of the matrix."""


def write_covariance(path: Path, moment: SecondMoment, record: Mapping[str, Any]) -> None:
    """Write a covariance file whole or not at all.

    Args:
        path: The file; an existing one is replaced.
        moment: The covariance; it is rounded to the record's `dtype`.
        record: The fields of `CovarianceRecord` that are not in the moment.

    Raises:
        OSError: The disk is full or not writable; an existing file is untouched.
    """
    matrix_II = moment.matrix_II.to("cpu", _DTYPES[record["dtype"]]).contiguous()
    figures = {"num_tokens": moment.num_tokens, "convergence": moment.convergence, "sha256": checksum(matrix_II)}
    whole = CovarianceRecord.model_validate({**record, **figures})
    with replace_file(path) as stream:
        stream.write(save({_NAME: matrix_II}, metadata={_RECORD: whole.model_dump_json()}))


def as_stored(moment: SecondMoment, dtype: str) -> SecondMoment:
    """Round the matrix to a dtype, as writing and reading a file of this dtype does."""
    return replace(moment, matrix_II=moment.matrix_II.to(_DTYPES[dtype]).double())


def read_record(path: Path) -> CovarianceRecord:
    """Read a file's record without the matrix.

    Raises:
        DamagedCovarianceError: The file cannot be read, or is not a covariance file.
    """
    try:
        with safe_open(path, "pt") as file:
            return CovarianceRecord.model_validate_json((file.metadata() or {}).get(_RECORD, ""))
    except (OSError, SafetensorError, ValidationError) as error:
        raise DamagedCovarianceError(f"{path} is not a whole covariance file: {error}") from error


def read_covariance(path: Path, device: torch.device) -> SecondMoment:
    """Read a covariance to a device, and verify its checksum.

    Raises:
        DamagedCovarianceError: As `read_record`, or the checksum is wrong.
    """
    record = read_record(path)
    try:
        with safe_open(path, "pt") as file:
            matrix_II = file.get_tensor(_NAME)
    except (OSError, SafetensorError) as error:
        raise DamagedCovarianceError(f"{path} is not a whole covariance file: {error}") from error
    if checksum(matrix_II) != record.sha256:
        raise DamagedCovarianceError(f"{path} does not have the checksum in its record")
    return SecondMoment(matrix_II.to(device).double(), record.num_tokens, record.convergence)

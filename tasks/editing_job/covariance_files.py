"""Covariances of keys on disk: a file a site, that says of which model and text it is."""

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

from overedit.editing.locate_then_edit.covariance import SecondMoment
from overedit.editing.model.weights import checksum
from overedit.editing.storage.atomic import replace_file

FORMAT = 1
"""Raised when a change of the code changes the numbers, so that nothing made before it is read."""
_NAME = "second_moment"
_RECORD = "covariance"
_DTYPES = MappingProxyType({"float32": torch.float32, "float64": torch.float64})


class DamagedCovarianceError(ValueError):
    """A covariance file that cannot be read, or does not hold what it says."""


class CovarianceRecord(BaseModel):
    """What a covariance file says of itself."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        ser_json_inf_nan="strings",
        protected_namespaces=(),
    )

    format: int = FORMAT
    site: str
    model_digest: str
    """Digest of the model's weights."""
    model_dtype: str
    """In which the model read the text."""
    corpus: str
    corpus_digest: str
    """Digest of the texts that were read."""
    num_samples: int | None
    """How many texts were asked for at most."""
    max_length: int
    """Tokens after which a text was cut."""
    dtype: Literal["float32", "float64"]
    """In which the matrix is stored."""
    num_tokens: int
    convergence: float
    sha256: str
    """Checksum of the matrix."""


def write_covariance(path: Path, moment: SecondMoment, record: Mapping[str, Any]) -> None:
    """Write a covariance file whole or not at all.

    Args:
        path: The file, replaced if it is there.
        moment: Rounded to the record's `dtype`.
        record: The fields of `CovarianceRecord` that the moment does not tell.

    Raises:
        OSError: The disk is full or not writable; what was there before is untouched.
    """
    matrix_II = moment.matrix_II.to("cpu", _DTYPES[record["dtype"]]).contiguous()
    figures = {"num_tokens": moment.num_tokens, "convergence": moment.convergence, "sha256": checksum(matrix_II)}
    whole = CovarianceRecord.model_validate({**record, **figures})
    with replace_file(path) as stream:
        stream.write(save({_NAME: matrix_II}, metadata={_RECORD: whole.model_dump_json()}))


def as_stored(moment: SecondMoment, dtype: str) -> SecondMoment:
    """What reading a file of this dtype would give: the matrix rounded to it."""
    return replace(moment, matrix_II=moment.matrix_II.to(_DTYPES[dtype]).double())


def read_record(path: Path) -> CovarianceRecord:
    """Read what a file says of itself, without the matrix.

    Raises:
        DamagedCovarianceError: It cannot be read, or is no covariance file.
    """
    try:
        with safe_open(path, "pt") as file:
            return CovarianceRecord.model_validate_json((file.metadata() or {}).get(_RECORD, ""))
    except (OSError, SafetensorError, ValidationError) as error:
        raise DamagedCovarianceError(f"{path} is not a whole covariance file: {error}") from error


def read_covariance(path: Path, device: torch.device) -> SecondMoment:
    """Read a covariance, verified, and put it on a device.

    Raises:
        DamagedCovarianceError: As `read_record`, or the matrix does not have its checksum.
    """
    record = read_record(path)
    try:
        with safe_open(path, "pt") as file:
            matrix_II = file.get_tensor(_NAME)
    except (OSError, SafetensorError) as error:
        raise DamagedCovarianceError(f"{path} is not a whole covariance file: {error}") from error
    if checksum(matrix_II) != record.sha256:
        raise DamagedCovarianceError(f"{path} does not have the checksum that it says")
    return SecondMoment(matrix_II.to(device).double(), record.num_tokens, record.convergence)

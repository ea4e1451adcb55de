"""The configuration keys of where a run's work is done."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator

_ADDRESS = re.compile(r"local|auto|[A-Za-z0-9_.\[\]:-]+:[0-9]{1,5}")


class LocalExecution(BaseModel):
    """Everything in one process, one trajectory after another."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    engine: Literal["local"] = "local"


class RayExecution(BaseModel):
    """Editing and measuring in processes of Ray, on several GPUs or machines, at the same time."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    engine: Literal["ray"]
    address: str = "local"
    """`local` starts Ray on this machine for the time of the run; `auto` is the Ray that runs on this machine already;
    `HOST:PORT` is a cluster's head."""
    editors: int = Field(default=1, ge=1)
    """How many trajectories are edited at once; each needs its own memory for the model."""
    engines: int = Field(default=1, ge=1)
    """How many checkpoints are measured at once, each by an engine of its own."""
    cpus_per_editor: int = Field(default=1, ge=1)
    """Processor cores of each editor, which are its torch threads where it has no GPU."""
    cpus_per_engine: int = Field(default=1, ge=1)
    """Processor cores of each engine."""
    gpus_per_editor: float | None = Field(default=None, ge=0)
    """GPUs of each editor, a share such as 0.5 too; None is 1 if Ray has GPUs, else 0."""
    gpus_per_engine: float | None = Field(default=None, ge=0)
    """GPUs of each engine, a share such as 0.5 too; None is as many as it is split over (`engine.tensor_parallel` times
    `engine.pipeline_parallel`) if Ray has GPUs, else 0."""

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str) -> str:
        if not _ADDRESS.fullmatch(address):
            raise ValueError("not an address of Ray; accepted: local, auto, or HOST:PORT, e.g. 10.0.0.1:6379")
        return address


Execution: TypeAlias = Annotated[LocalExecution | RayExecution, Field(discriminator="engine")]


def check_installed() -> None:
    """Check that Ray is installed.

    Raises:
        ValueError: It is not.
    """
    if find_spec("ray") is None:
        raise ValueError("execution.engine: ray is not installed here; install the extra: pip install 'overedit[ray]'")

"""Which general benchmarks are asked for, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from overedit.tasks.evaluation.capability.suites import SUITES
from overedit.tasks.pocket_world.shipped import WORLDS, ShippedWorld
from overedit.tasks.system.untrusted import shown_value


class AskedTask(NamedTuple):
    """An lm-eval task, group or tag to run."""

    name: str
    shots: int | None
    """The suite's number of worked examples; None where it does not say."""


class CapabilityOptions(BaseModel):
    """The general benchmarks."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    suite: str | None = None
    """A set of benchmarks by name (`overedit suites` lists them); those in `tasks` are run as well."""
    tasks: tuple[str, ...] = ()
    """Names of lm-eval tasks, groups or tags."""
    include_path: Path | None = None
    """A folder of further task files; `pocket` is the pocket world's own."""
    trust_task_code: bool = False
    """Whether that folder may run code, as lm-eval's task files can: by `!function`, YAML tags and templates."""
    files: dict[str, Path] = {}
    """Task, group or tag -> a local file of its items, or a folder of files named by split; nothing is downloaded."""
    limit: int | None = Field(default=None, ge=1)
    """The most items of each task, from the first on; None takes the suite's limit, or all."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Worked examples before each question; None takes the suite's or the task's number. A task file's 0 stays 0."""
    shots: dict[str, Annotated[int, Field(ge=0)]] = {}
    """Task, group or tag -> its worked examples; overrides all other numbers."""
    when: Literal["every", "gated", "last", "never"] = "every"
    """At which checkpoints: all; where the level of perplexity changes, and the last; the last; none. Always at 0."""
    gate_ratio: float = Field(default=1.05, gt=1)
    """With `gated`: the steps of perplexity (of `perplexity.corpus`) over the pristine model's that make a level."""

    @field_validator("suite")
    @classmethod
    def _is_known(cls, suite: str | None) -> str | None:
        if suite is not None and suite not in SUITES:
            raise ValueError(f"there is no suite {shown_value(suite)}; accepted: {', '.join(SUITES)}")
        return suite

    @model_validator(mode="after")
    def _code_is_trusted_by_name(self) -> Self:
        if self.include_path is not None and self.world is None and not self.trust_task_code:
            raise ValueError(
                f"include_path: task files can run code (!function, YAML tags, templates), so {self.include_path} is "
                "read only with trust_task_code: true"
            )
        return self

    @property
    def world(self) -> ShippedWorld | None:
        """The shipped world whose tasks `include_path` names; None where it names a folder or nothing."""
        return WORLDS.get(str(self.include_path))

    @property
    def asked(self) -> tuple[AskedTask, ...]:
        """The suite's tasks and those named, each once."""
        suite = [AskedTask(task.name, task.shots) for task in SUITES[self.suite].tasks] if self.suite else []
        named = [AskedTask(name, None) for name in self.tasks if name not in {task.name for task in suite}]
        return (*suite, *dict.fromkeys(named))

    @property
    def most_items(self) -> int | None:
        """The most items of each task; None is all."""
        return SUITES[self.suite].limit if self.limit is None and self.suite else self.limit

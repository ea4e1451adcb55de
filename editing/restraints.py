"""Restraints: what is taken out of a weight change so that less of the model's other behaviour is lost.

Any method can have one (`restraint` in its configuration). A restraint of a turn changes what the method returns before
it is written. A restraint of the trajectory changes the whole difference to the pristine model, at each edit count, on
a copy: the next turn goes on from the weights without it.

Checked against: masks, projectors, spectra and changes of published implementations (golden data).

Shapes: I inputs and O outputs of a projection. Changes and weights are (O, I) here, whatever the layout in the model.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from torch import nn

from overedit.editing.model.anatomy import is_projection, stores_in_out
from overedit.editing.model.weights import Delta, LowRank, Replacement, apply_update, write_tensors

RestraintLog = dict[str, float | int]
"""How much was taken out: the share of the change's norm that is left, and the entries that have become 0."""


class Restraint(BaseModel):
    """A restraint's settings, and the restraint itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    of: ClassVar[Literal["turn", "trajectory"]] = "turn"
    """What it restrains: each turn's change as it is written, or the whole change at an edit count, on a copy."""

    def __str__(self) -> str:
        """See `in_short`."""
        return in_short(self)

    def restrained(self, delta_OI: torch.Tensor, weight_OI: torch.Tensor, *, name: str, in_out: bool) -> torch.Tensor:
        """The change that is left of a change.

        Args:
            delta_OI: float32 or float64.
            weight_OI: The weight that it is added to, in the same dtype: that before the turn, or the pristine one.
            name: The parameter's name, from which random restraints derive their seed.
            in_out: Whether the model stores the weight as (I, O).

        Returns:
            (O, I); `delta_OI` itself where nothing is taken out.
        """
        raise NotImplementedError


class Rect(Restraint):
    """Only the entries that change the most in relation to the weight are written.

    "Model Editing Harms General Abilities of Large Language Models: Regularization to the Rescue" (Gu et al., EMNLP
    2024, arXiv 2401.04700).
    """

    kind: Literal["rect"] = "rect"
    keep: float = Field(default=0.4, gt=0, le=1)
    """The share of the entries that is written."""
    compat: Literal["none", "nas-5acab48"] = "none"
    """`nas-5acab48`: keep what reaches the threshold, which is one entry more, and more where entries are equal."""

    def restrained(self, delta_OI: torch.Tensor, weight_OI: torch.Tensor, *, name: str, in_out: bool) -> torch.Tensor:
        """Keep the share of entries with the largest |delta / weight|; of equal ones, any."""
        if self.keep == 1:
            return delta_OI
        relative_N = (delta_OI / (weight_OI + 1e-8)).abs().reshape(-1)
        if self.compat == "none":
            kept_N = torch.zeros_like(relative_N, dtype=torch.bool)
            kept_N[relative_N.topk(round(self.keep * len(relative_N))).indices] = True
        else:
            kept_N = relative_N >= relative_N.kthvalue(max(1, int(len(relative_N) * (1 - self.keep)))).values
        return delta_OI * kept_N.reshape(delta_OI.shape)


class Sphere(Restraint):
    """The change is weakened in the directions in which the weight's rows mostly lie.

    "Energy-Regularized Sequential Model Editing on Hyperspheres" (arXiv 2510.01172).
    """

    kind: Literal["sphere"] = "sphere"
    energy: float = Field(default=0.5, ge=0, lt=1)
    """eta: the share of the rows' energy in the principal directions."""
    strength: float = Field(default=0.5, ge=0, le=1)
    """alpha: how much of the change in these directions is taken out."""
    compat: Literal["none", "easyedit-14cea82"] = "none"
    """`easyedit-14cea82`: take the weight as it is stored, so that for GPT-2 the outputs are projected."""

    def restrained(self, delta_OI: torch.Tensor, weight_OI: torch.Tensor, *, name: str, in_out: bool) -> torch.Tensor:
        """Delta (1 - alpha U U^T), where U spans the principal directions of the normalized rows of the weight."""
        if self.strength == 0:
            return delta_OI
        if in_out and self.compat != "none":
            return self._projected(delta_OI.T, weight_OI.T).T
        return self._projected(delta_OI, weight_OI)

    def _projected(self, delta_OI: torch.Tensor, weight_OI: torch.Tensor) -> torch.Tensor:
        rows_OI = nn.functional.normalize(weight_OI.double(), dim=1)
        values_I, vectors_II = torch.linalg.eigh(rows_OI.T @ rows_OI / len(rows_OI))
        shares_I = values_I.flip(0).cumsum(0) / values_I.sum()
        principal_IR = vectors_II[:, -(int((shares_I <= self.energy).sum()) + 1) :].to(delta_OI.dtype)
        return torch.addmm(delta_OI, delta_OI @ principal_IR, principal_IR.T, alpha=-self.strength)


class Prune(Restraint):
    """Singular values of the whole change that exceed the weight's largest are shrunk.

    "Perturbation-Restrained Sequential Model Editing" (Ma et al., ICLR 2025, arXiv 2405.16821).
    """

    of: ClassVar[Literal["turn", "trajectory"]] = "trajectory"

    kind: Literal["prune"] = "prune"
    excess: Literal["log", "half"] = "log"
    """What is left above the weight's largest singular value m: log(s) - log(m) + m, or (s + m) / 2."""
    base: float = Field(default=math.e, gt=1)
    """Base of the logarithm: e, 2, 1.5 and 1.2 were published."""

    def restrained(self, delta_OI: torch.Tensor, weight_OI: torch.Tensor, *, name: str, in_out: bool) -> torch.Tensor:
        """Shrink the singular values above the weight's largest, and leave the others and all directions."""
        most = float(torch.linalg.matrix_norm(weight_OI.double(), ord=2))
        left_OS, values_S, right_SI = torch.linalg.svd(delta_OI.double(), full_matrices=False)
        if values_S[0] <= most:
            return delta_OI
        if self.excess == "log":
            shrunk_S = (values_S / most).log() / math.log(self.base) + most
        else:
            shrunk_S = (values_S + most) / 2
        values_S = torch.where(values_S > most, shrunk_S, values_S)
        return torch.mm(left_OS * values_S, right_SI).to(delta_OI.dtype)


class Truncate(Restraint):
    """Only the leading singular directions of the whole change are kept: what DARE is compared with for low ranks."""

    of: ClassVar[Literal["turn", "trajectory"]] = "trajectory"

    kind: Literal["truncate"] = "truncate"
    rank: int = Field(ge=1)
    """The most singular directions."""

    def restrained(self, delta_OI: torch.Tensor, weight_OI: torch.Tensor, *, name: str, in_out: bool) -> torch.Tensor:
        """The nearest change of this rank."""
        if self.rank >= min(delta_OI.shape):
            return delta_OI
        left_OS, values_S, right_SI = torch.linalg.svd(delta_OI.double(), full_matrices=False)
        kept = slice(0, self.rank)
        return torch.mm(left_OS[:, kept] * values_S[kept], right_SI[kept]).to(delta_OI.dtype)


class Dare(Restraint):
    """Entries of the whole change are dropped at random, and the others are scaled up.

    "Language Models are Super Mario" (Yu et al., ICML 2024, arXiv 2311.03099); for q: "DARE the Extreme" (Deng et al.,
    ICLR 2025, arXiv 2410.09344).
    """

    of: ClassVar[Literal["turn", "trajectory"]] = "trajectory"

    kind: Literal["dare"] = "dare"
    drop: float = Field(default=0.9, ge=0, lt=1)
    """p: the probability that an entry is dropped."""
    q: float | None = Field(default=None, gt=0, le=1)
    """What the others are divided by; 1 - p by default, which keeps the mean; DAREx-q takes more, up to 1."""
    seed: int = 0
    """Seed of the choice; it is the same at every edit count."""

    def restrained(self, delta_OI: torch.Tensor, weight_OI: torch.Tensor, *, name: str, in_out: bool) -> torch.Tensor:
        """Drop each entry with probability p, and divide by q."""
        if self.drop == 0 and self.q in (None, 1):
            return delta_OI
        kept = kept_at_random(delta_OI.T.shape if in_out else delta_OI.shape, self.drop, f"{self.seed}:{name}")
        kept_OI = (kept.T if in_out else kept).to(delta_OI.device)
        return delta_OI * kept_OI / (self.q or 1 - self.drop)


def kept_at_random(shape: Sequence[int], drop: float, seed: str) -> torch.Tensor:
    """Which entries of a tensor are kept if each is dropped with a probability: bool on the CPU, from a named seed."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") >> 1
    return torch.rand(tuple(shape), generator=torch.Generator().manual_seed(number)) >= drop


def in_short(settings: BaseModel) -> str:
    """The kind, and the settings that are not the defaults: `prune(base=1.2)`."""
    changed = ", ".join(f"{name}={value}" for name, value in settings.model_dump(exclude_defaults=True).items())
    kind = str(type(settings).model_fields["kind"].default)
    return f"{kind}({changed})" if changed else kind


def short_form(given: Any) -> Any:
    """The settings that a kind alone stands for."""
    return {"kind": given} if isinstance(given, str) else given


AnyRestraint = Annotated[
    Annotated[Rect | Sphere | Prune | Truncate | Dare, Field(discriminator="kind")], BeforeValidator(short_form)
]
"""Any restraint; a configuration may write its kind alone: `restraint: rect`."""


def restrained_turns(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that returns what its configuration's restraint leaves of each turn's change.

    Args:
        method: Takes the model first and the configuration as its fourth argument; returns an `EditResult`.
    """

    @wraps(method)
    def edit(model: nn.Module, tokenizer: Any, requests: Any, config: Any, state: Any, **more: Any) -> Any:
        result = method(model, tokenizer, requests, config, state, **more)
        restraint: Restraint | None = config.restraint
        if restraint is None or restraint.of != "turn":
            return result
        changes = _changes(model, {name: model.get_parameter(name).detach() for name in result.update}, result.update)
        left, log = _left(restraint, changes)
        return result._replace(update=result.update | left, log=result.log | log)

    return edit


def restrain_trajectory(
    model: nn.Module, restraint: Restraint | None, base: Mapping[str, torch.Tensor]
) -> RestraintLog | None:
    """Leave of a model's whole change what a restraint of the trajectory leaves of it.

    Args:
        model: Changed in place.
        restraint: The method's.
        base: The pristine values of every parameter that was edited.

    Returns:
        What was taken out, for the log; None where there is no such restraint, and nothing was written.
    """
    if restraint is None or restraint.of != "trajectory":
        return None
    now = {name: Replacement(model.get_parameter(name).detach()) for name in base}
    before = {name: tensor.to(now[name].tensor.device) for name, tensor in base.items()}
    left, log = _left(restraint, _changes(model, before, now))
    write_tensors(model, {name: before[name] for name in left})
    apply_update(model, left)
    return log


class _Change(NamedTuple):
    """The change of a projection's weight, as (O, I)."""

    delta_OI: torch.Tensor
    weight_OI: torch.Tensor
    in_out: bool


def _changes(
    model: nn.Module, before: Mapping[str, torch.Tensor], update: Mapping[str, LowRank | Delta | Replacement]
) -> dict[str, _Change]:
    """The changes of the projections' weights in an update; other parameters (norms, biases) are not restrained."""
    changes = {}
    for name, change in update.items():
        module = model.get_submodule(name.rpartition(".")[0])
        if not is_projection(module) or not name.endswith(".weight"):
            continue
        delta, in_out = _dense(change, before[name]), stores_in_out(module)
        weight = before[name].to(delta)
        changes[name] = _Change(delta.T, weight.T, True) if in_out else _Change(delta, weight, False)
    return changes


def _dense(change: LowRank | Delta | Replacement, weight: torch.Tensor) -> torch.Tensor:
    """A change as one tensor, in float32 or, for float64 weights or changes, in float64."""
    dtype = torch.promote_types(change[0].dtype, torch.promote_types(weight.dtype, torch.float32))
    if isinstance(change, LowRank):
        return (change.left.to(weight.device) @ change.right.to(weight.device)).to(dtype)
    if isinstance(change, Delta):
        return change.tensor.to(weight.device, dtype)
    return change.tensor.to(weight.device, dtype) - weight.to(dtype)


def _left(restraint: Restraint, changes: Mapping[str, _Change]) -> tuple[dict[str, Delta], RestraintLog]:
    """What a restraint leaves of changes that it does not leave as they are; for the log, how much it takes out."""
    left, before, after, dropped = {}, 0.0, 0.0, 0
    for name, (delta_OI, weight_OI, in_out) in changes.items():
        found_OI = restraint.restrained(delta_OI, weight_OI, name=name, in_out=in_out)
        before += float(delta_OI.double().square().sum())
        after += float(found_OI.double().square().sum())
        if found_OI is not delta_OI:
            dropped += int(((found_OI == 0) & (delta_OI != 0)).sum())
            left[name] = Delta((found_OI.T if in_out else found_OI).contiguous())
    norm_kept = math.sqrt(after / before) if before else 1.0
    return left, {"restraint/norm_kept": norm_kept, "restraint/entries_dropped": dropped}

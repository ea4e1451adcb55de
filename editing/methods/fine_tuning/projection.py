"""Steps of fine-tuning without the directions in which a loss is curved, given Kronecker factors of its curvature.

With A = U_A diag(a) U_A^T over the inputs and B = U_B diag(b) U_B^T over the outputs of a projection, the curvature of
the direction (i, j), U_B[:, i] U_A[:, j]^T, is b_i a_j. The most curved directions are frozen, as many as hold a given
share of all curvature (its `energy`); with M = 1 for the others, the projection of a matrix G on what is free is

    P(G) = U_B ((U_B^T G U_A) * M) U_A^T                        (CrispEdit, arXiv 2602.15823; * entry by entry)

Adam divides each entry of a projected gradient by a number of its own, so its step is not inside the free directions:
the share that is outside is its *leak*. Projecting the step after Adam leaves none.

Shapes: I inputs and O outputs of a projection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import torch

from overedit.editing.methods.base import State, Work
from overedit.editing.model.shape import SiteShape


class FreeDirections(NamedTuple):
    """The directions of one projection's weight that are not frozen."""

    inputs_II: torch.Tensor
    """U_A, float32."""
    outputs_OO: torch.Tensor
    """U_B, float32."""
    free_OI: torch.Tensor
    """M, bool."""
    num_frozen: int
    in_out: bool
    """Whether the weight is stored as (I, O)."""

    @classmethod
    def of(cls, curvature_II: torch.Tensor, curvature_OO: torch.Tensor, energy: float, *, in_out: bool) -> Self:
        """Freeze the fewest directions that hold a share of the curvature; of equal ones, all or none.

        Args:
            curvature_II: A, symmetric, float64.
            curvature_OO: B, symmetric, float64.
            energy: 0 freezes nothing, 1 all that is curved to the precision of float64.
            in_out: Whether the weight is stored as (I, O).
        """
        inputs_I, inputs_II = torch.linalg.eigh(curvature_II)
        outputs_O, outputs_OO = torch.linalg.eigh(curvature_OO)
        curved_OI = torch.outer(outputs_O.clamp(min=0), inputs_I.clamp(min=0))
        descending = curved_OI.flatten().sort(descending=True).values
        held = torch.cat([descending.new_zeros(1), descending]).cpu().cumsum(0)  # on a GPU its last bits vary
        rank = int((held < energy * held[-1]).sum())
        free_OI = curved_OI < (descending[rank - 1] if rank else torch.inf)
        num_frozen = free_OI.numel() - int(free_OI.sum())
        return cls(inputs_II.float(), outputs_OO.float(), free_OI, num_frozen, in_out)

    def project(self, stored: torch.Tensor) -> torch.Tensor:
        """P(G) of a matrix in the layout of the stored weight, float32; the same tensor where nothing is frozen."""
        return self.combined(self.coordinates(stored) * self.free_OI) if self.num_frozen else stored

    def coordinates(self, stored: torch.Tensor) -> torch.Tensor:
        """U_B^T G U_A, (O, I), of a matrix in the layout of the stored weight."""
        return self.outputs_OO.T @ (stored.T if self.in_out else stored) @ self.inputs_II

    def combined(self, coordinates_OI: torch.Tensor) -> torch.Tensor:
        """The matrix of these coordinates, in the layout of the stored weight."""
        matrix_OI = self.outputs_OO @ coordinates_OI @ self.inputs_II.T
        return matrix_OI.T.contiguous() if self.in_out else matrix_OI


class ProjectedSteps:
    """Hooks that project the gradients before Adam, or its steps after it, and measure the leak of its steps."""

    def __init__(
        self,
        optimizer: torch.optim.Adam,
        values: Mapping[str, torch.Tensor],
        free: Mapping[str, FreeDirections],
        *,
        projected: Literal["gradient", "step"],
        state: State,
    ) -> None:
        """Hook into an optimizer, and give it the moments of an earlier turn.

        Args:
            optimizer: Before its first step.
            values: Site -> what it trains.
            free: Site -> the directions that are left free.
            projected: What is projected.
            state: What `moments` returned; nothing before the first turn. Where gradients are projected, so is their
                mean over earlier steps, since what was free may be frozen now.
        """
        self._optimizer, self._values, self._free, self._projected = optimizer, values, free, projected
        self._before: dict[str, torch.Tensor] = {}
        self._leaks: dict[str, list[torch.Tensor]] = {site: [] for site in values}
        for site, value in values.items() if "steps" in state else ():
            first, second = (state[f"{site}.{name}_moment"].to(value.device, copy=True) for name in ("first", "second"))
            steps = state["steps"].to(value.device, torch.float32, copy=True)
            first = free[site].project(first) if projected == "gradient" else first
            optimizer.state[value] = {"step": steps, "exp_avg": first, "exp_avg_sq": second}
        optimizer.register_step_pre_hook(self._before_step)
        optimizer.register_step_post_hook(self._after_step)

    @torch.no_grad()
    def _before_step(self, *_: Any) -> None:
        for site, value in self._values.items():
            self._before[site] = value.detach().clone()
            if self._projected == "gradient" and value.grad is not None:
                value.grad = self._free[site].project(value.grad)

    @torch.no_grad()
    def _after_step(self, *_: Any) -> None:
        for site, value in self._values.items():
            free = self._free[site]
            if not free.num_frozen:
                continue
            before = self._before.pop(site)
            step_OI = free.coordinates(value - before)
            frozen_OI = step_OI.masked_fill(free.free_OI, 0.0)
            self._leaks[site].append((frozen_OI.norm() / step_OI.norm()).nan_to_num(0.0))
            if self._projected == "step":
                torch.add(before, free.combined(step_OI - frozen_OI), out=value)

    def moments(self) -> State:
        """Adam's moments by site, `<site>.first_moment` and `<site>.second_moment`, and the number of its `steps`."""
        found: State = {"steps": torch.tensor(0.0)}
        for site, value in self._values.items():
            adam = self._optimizer.state.get(value) or {"exp_avg": value * 0, "exp_avg_sq": value * 0}
            found["steps"] = adam.get("step", found["steps"]).to("cpu", copy=True)
            for name, key in (("first", "exp_avg"), ("second", "exp_avg_sq")):
                found[f"{site}.{name}_moment"] = adam[key].detach().to("cpu", copy=True).contiguous()
        return found

    def log(self) -> dict[str, float | int | str]:
        """By site, the share of directions that are frozen, and the mean over the steps of Adam's leak."""
        found: dict[str, float | int | str] = {}
        for site, free in self._free.items():
            leaks = self._leaks[site]
            found[f"{site}/frozen"] = free.num_frozen / free.free_OI.numel()
            found[f"{site}/leak"] = float(torch.stack(leaks).mean()) if leaks else 0.0
        return found


def projection_work(sites: Sequence[SiteShape], *, steps: int, projected: Literal["gradient", "step"]) -> Work:
    """What the projections of a turn take, and A and B of all edits with Adam's moments as its state.

    To or from the directions' coordinates: 2 I O (I + O) in float32, in each step three times for gradients (to and
    fro, and to once more for Adam's leak) and twice for steps. Eigenvectors: 9 I^3 + 9 O^3 in float64, in each turn.
    Bytes: by site A and B in float64, their eigenvectors in float32, M, and the weight before the step; and four
    matrices of the largest decomposition. The state is float32: at I = 14,336 and O = 4,096 (Llama-3-8B's down_proj)
    0.89 GB of A and B and 0.47 GB of moments for each site.
    """
    squares, entries = sum(s.inputs**2 + s.outputs**2 for s in sites), sum(s.inputs * s.outputs for s in sites)
    turns = steps * {"gradient": 3, "step": 2}[projected]
    changes = turns * sum(2.0 * s.inputs * s.outputs * (s.inputs + s.outputs) for s in sites)
    return Work(
        operations=changes + 18.0 * sum(s.inputs**3 + s.outputs**3 for s in sites),
        num_bytes=12 * squares + 5 * entries + 32 * max(max(s.inputs, s.outputs) for s in sites) ** 2,
        state_bytes=4 * squares + 8 * entries + 12,
    )

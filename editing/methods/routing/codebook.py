"""GRACE's codebook: for each entry a key, a radius around it, and what a module puts out for a prompt inside.

Shapes: N entries, B prompts, I inputs and O outputs of the module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch

from overedit.editing.methods.base import State

Event = Literal["added", "expanded", "split"]
"""What an edit does to the entries: its own one is added; the nearest one is expanded to hold it; or its own one is
added, and the nearest one, of another target, shrinks."""

_GAP = 1e-5
"""Distance between the radii of two entries that were split (published code)."""
_SLACK = 1 + 1e-4
"""A key is inside a radius up to this multiple of it: the same prompt has slightly other bits in another batch."""
_ROWS = 16_384
"""Keys compared at once."""


class Codebook(NamedTuple):
    """The entries, in the order in which they were made."""

    keys_NI: torch.Tensor
    """float32, on the CPU, as are the values."""
    values_NO: torch.Tensor
    radii_N: torch.Tensor
    """float64, Euclidean."""
    targets: tuple[tuple[int, ...], ...]
    """Token ids of each entry's target."""

    @classmethod
    def load(cls, state: State, num_inputs: int, num_outputs: int) -> Codebook:
        """Read the entries that `stored` wrote; none from an empty state."""
        if not state:
            return cls(torch.empty(0, num_inputs), torch.empty(0, num_outputs), torch.empty(0).double(), ())
        targets = state["targets"].split(state["target_lengths"].tolist())
        return cls(state["keys"], state["values"], state["radii"], tuple(tuple(ids.tolist()) for ids in targets))

    def stored(self) -> State:
        """The entries as CPU tensors; targets (int64) one after the other, with their lengths."""
        return {
            "keys": self.keys_NI,
            "values": self.values_NO,
            "radii": self.radii_N,
            "targets": torch.tensor([token for target in self.targets for token in target]),
            "target_lengths": torch.tensor([len(target) for target in self.targets]),
        }

    def nearest(self, keys_BI: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Distance (B, float64) to the nearest entry's key, and that entry's index (B); of equal ones the earliest."""
        wanted_BI = keys_BI.double()
        best_B = torch.full((len(wanted_BI),), torch.inf, dtype=torch.float64, device=wanted_BI.device)
        index_B = torch.zeros(len(wanted_BI), dtype=torch.int64, device=wanted_BI.device)
        for first in range(0, len(self.keys_NI), _ROWS):
            part_NI = self.keys_NI[first : first + _ROWS].to(wanted_BI)
            found = torch.cdist(wanted_BI, part_NI, compute_mode="donot_use_mm_for_euclid_dist").min(1)
            nearer_B = found.values < best_B
            index_B = torch.where(nearer_B, found.indices + first, index_B)
            best_B = torch.where(nearer_B, found.values, best_B)
        return best_B, index_B

    def lookup(self, keys_BI: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Whether each key is inside the radius of the nearest entry (B), and that entry's index (B)."""
        distance_B, index_B = self.nearest(keys_BI)
        return distance_B <= _SLACK * self.radii_N.to(distance_B)[index_B], index_B

    def insert(self, keys_BI: torch.Tensor, targets: Sequence[tuple[int, ...]], radius: float) -> Insertion:
        """Make room for edits, one after the other (arXiv 2211.11031, algorithm 1).

        Args:
            keys_BI: Their keys, at least one, float32 on the CPU.
            targets: Token ids of their targets.
            radius: Of a new entry.
        """
        between_BB = torch.cdist(keys_BI.double(), keys_BI.double(), compute_mode="donot_use_mm_for_euclid_dist")
        nearest_old = list(zip(*map(torch.Tensor.tolist, self.nearest(keys_BI)), strict=True))
        radii, wanted, made = self.radii_N.tolist(), list(self.targets), list[int]()
        entries, events = list[int](), list[Event]()
        for edit, target in enumerate(targets):
            near_new = [(float(between_BB[edit, other]), len(self.targets) + n) for n, other in enumerate(made)]
            distance, entry = min((nearest_old[edit], *near_new))
            event: Event = "added"
            if distance <= radius + (radii[entry] if radii else 0.0):
                event = "expanded" if wanted[entry] == target else "split"
            if event == "expanded":
                radii[entry] = max(distance, radii[entry])
            else:
                if event == "split":
                    radii[entry] = distance / 2 - _GAP
                radii.append(distance / 2 if event == "split" else radius)
                entry = len(wanted)
                wanted.append(target)
                made.append(edit)
            entries.append(entry)
            events.append(event)
        keys_NI = torch.cat([self.keys_NI, keys_BI[made]])
        values_NO = torch.cat([self.values_NO, self.values_NO.new_zeros(len(made), self.values_NO.shape[1])])
        radii_N = torch.tensor(radii, dtype=torch.float64)
        return Insertion(Codebook(keys_NI, values_NO, radii_N, tuple(wanted)), entries, events)


class Insertion(NamedTuple):
    """The codebook with room for some edits."""

    codebook: Codebook
    """The values of new entries are 0."""
    entries: list[int]
    """The index of each edit's entry."""
    events: list[Event]

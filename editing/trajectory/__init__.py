"""Editing turn by turn: the runner, its checkpoints, and interruption."""

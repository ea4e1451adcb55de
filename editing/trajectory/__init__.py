"""A model edited turn by turn: the runner, its checkpoints, and how it is interrupted."""

"""What a run will take: memory, disk, operations and time, before it starts."""

"""Models on the disk: where they are, how they are loaded, and how an edited one is exported."""

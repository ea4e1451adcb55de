"""Files on the disk: atomic writes, checksums and free space."""

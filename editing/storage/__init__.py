"""What is on the disk: files that appear whole or not at all, their checksums, and free space."""

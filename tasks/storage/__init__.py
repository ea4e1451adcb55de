"""Homes in an object store: URLs, working copies, and locks."""

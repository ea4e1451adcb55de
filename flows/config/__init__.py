"""Configurations: their models, their files, presets, and what makes two of them the same run."""

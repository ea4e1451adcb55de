"""Measuring a checkpoint: which questions are asked, how answers are scored, and what is stored."""

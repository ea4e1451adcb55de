"""What can happen to an edited model afterwards: quantization, merging with the base, further training on plain text."""

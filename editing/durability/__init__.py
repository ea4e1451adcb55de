"""What can happen to an edited model: quantization, merging with its base, further training on plain text."""

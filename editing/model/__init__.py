"""Access to the model: named parts, weights, hooks, tokenization, cross-entropy and device memory."""

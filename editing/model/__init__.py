"""The model itself: its named parts, its weights, hooks into its forward pass, tokens and memory."""

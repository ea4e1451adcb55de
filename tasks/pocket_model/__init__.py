"""The small model that knows the pocket world: its tokenizer, its training, and what it has learned."""

"""The small model of the pocket world: its tokenizer, its training, and the measures of what it has learned."""

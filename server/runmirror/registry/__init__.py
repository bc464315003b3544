"""The model registry: registered models, model versions, stages, aliases, tags, and prompts, which are made of them."""

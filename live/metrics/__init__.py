"""Picture metrics: thin, documented wrappers with their ranges and backbones stated."""

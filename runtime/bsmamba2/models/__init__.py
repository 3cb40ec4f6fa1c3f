"""From the name of a model to its engines: registry, downloads, checks."""

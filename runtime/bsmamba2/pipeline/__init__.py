"""The path of a song through an engine: overlap-add, steps, resampling, the residual."""

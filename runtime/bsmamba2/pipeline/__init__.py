"""The path of a song through a model: overlap-add, steps, resampling, the residual."""

"""Audio arrays and transforms: channels, resampling, Fourier transforms, latency, schedules."""

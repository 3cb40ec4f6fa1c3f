"""Audio arrays and transforms: channels, resampling, Fourier, latency, schedules."""

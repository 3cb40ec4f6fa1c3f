"""Many songs: planned first, recorded when done, resumed later."""

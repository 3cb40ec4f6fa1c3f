"""A page to see and hear the result of a separation."""

"""Training and evaluation of BSMamba2: free data, loss, loop, and honest figures."""

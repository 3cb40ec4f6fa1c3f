"""Training and evaluation of BSMamba2: a free data set, the loss, the training loop, the scores."""

"""What train_LDEQ_WFLW.py is made of: options, losses, one step, state on disk, the log."""

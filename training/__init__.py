"""The parts of train_LDEQ_WFLW.py: options, losses, one step, state on disk, the log."""

"""The shell around the pure core: apply events, keep duties running, do the I/O."""

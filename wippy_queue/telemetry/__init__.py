"""What an engine tells about itself: events, logs, metrics, traces."""

"""A large CSV into the event store: time and peak memory."""

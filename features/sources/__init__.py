"""One reader per kind of input; each ends in the event store."""

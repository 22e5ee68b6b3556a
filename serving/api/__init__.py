"""The interfaces of the service: what may be asked, and how it answers."""

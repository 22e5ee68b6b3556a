"""The operational database: what the service keeps from day to day."""

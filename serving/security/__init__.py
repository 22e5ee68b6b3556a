"""Who may come in, and do what; see docs/security.md."""

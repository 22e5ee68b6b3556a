"""How long a synthetic county takes, and how much memory."""

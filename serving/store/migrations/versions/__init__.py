"""One module a step, each up and down."""

"""The model report: a few figures for a terminal or a program, and a page for whoever has to trust the model.

The page, :func:`training.report.page.page`, stands apart: what draws it takes seconds to import.
"""

from training.report.figures import lines, summary

__all__ = ["lines", "summary"]

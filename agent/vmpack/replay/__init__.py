"""Journals through the decisions again: proof that what was decided follows from what was seen."""

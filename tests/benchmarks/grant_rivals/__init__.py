"""Other ways of making offers, each from its documented rule; replay/grant_policies.py finds them here."""

"""Scenes on real guests: what happens on a host, as data, and what must hold in every interval of it."""

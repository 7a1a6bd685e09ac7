"""Faults put into the real agent at each of its external calls, from outside."""

"""Frozen records that every room shares. Imports only the standard library and vmpack.errors."""

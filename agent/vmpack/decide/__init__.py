"""Pure decisions: frozen values in, frozen values out. No clock, no file, no log, no randomness."""

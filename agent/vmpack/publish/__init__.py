"""What leaves one interval: probe texts, metrics, the journal and the history. Knows only the model."""

"""The demo: the main job on real small guests, in about a minute. Started by `vmpack demo`."""

"""The level-1 daemon: wires one interval of one host, and answers for it on a local socket."""

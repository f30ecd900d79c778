"""The embedded model organism: a synthetic world and a tiny model of it."""

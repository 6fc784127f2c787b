"""Decoders: one config, shared layers, one file a family, presets as data."""

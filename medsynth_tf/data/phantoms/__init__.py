"""Phantoms: images drawn by a program from a seed, with their label maps, for tests, demos and claims."""

from medsynth_tf.data.phantoms.source import PhantomSource, open_phantom

__all__ = ["PhantomSource", "open_phantom"]

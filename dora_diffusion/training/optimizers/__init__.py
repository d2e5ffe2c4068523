"""Optimizers over an adapter's flat buffers: one a file, each an ``OptimizerKind`` named in ``registry.OPTIMIZERS``."""

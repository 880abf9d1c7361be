"""How fast everthread is, beside the bare driver in the same run: ``python -m bench``."""

"""A Store around a Store: the same contract with something added."""

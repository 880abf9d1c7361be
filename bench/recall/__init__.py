"""How well stored turns are found: by words, by meaning, and by both."""

"""SIGKILL at any moment: what is run again ends in the state in which one clean run ends."""

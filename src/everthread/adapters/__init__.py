"""Adapters for agent frameworks, imported on demand."""

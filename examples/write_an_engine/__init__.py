"""The engine of docs/contributing/write-an-engine.md."""

"""One framework each, imported only on demand."""

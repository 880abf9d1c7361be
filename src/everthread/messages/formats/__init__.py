"""One module per payload format, which recognizes and interprets it. Pure JSON, no framework imports."""

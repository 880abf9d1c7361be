"""One module a payload format: how to recognise it and what it means. Pure JSON, no framework imports."""

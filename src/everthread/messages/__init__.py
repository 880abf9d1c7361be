"""The contents of messages: payload bytes and values, formats, tool links, tokens and search text. No I/O."""

"""The web viewer behind ``everthread view``. Needs the extra ``server``."""

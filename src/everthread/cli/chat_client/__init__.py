"""The interactive client that ``everthread chat`` runs."""

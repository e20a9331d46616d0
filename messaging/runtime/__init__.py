"""The async shells: they move data between the adapters and the user's functions."""

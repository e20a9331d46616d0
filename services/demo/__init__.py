"""A short story told by the example services: `python -m services.demo`. Everything it shows has just happened."""

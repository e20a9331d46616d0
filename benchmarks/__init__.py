"""What things cost, measured on this machine; nothing here is a test, and nothing is timed in the build."""

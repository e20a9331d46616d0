"""Values and decisions without I/O: no await, clock, randomness or broker."""

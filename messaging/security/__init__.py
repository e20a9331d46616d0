"""Signed and end-to-end encrypted messages: keys, trust, sealing and opening (docs/spec.md, docs/trust.md)."""

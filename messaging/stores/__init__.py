"""Adapters that remember which messages ran: `memory` in process, behind the port of `base`."""

"""The whole broker in process, and the transport to it: for tests, examples, and services that share one process."""

from messaging.transports.memory.broker import MemoryBroker
from messaging.transports.memory.transport import MemoryTransport

__all__ = ["MemoryBroker", "MemoryTransport"]

"""For the tests of users: services joined in process, throwaway keys, a clock that moves only when advanced."""

from messaging.testing.harness import Harness

__all__ = ["Harness"]

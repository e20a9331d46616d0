"""Whether single steps are logged: the events of level debug that every message has.

A lazy structlog logger builds a bound logger for each call and only then learns that the level is off, which costs 3 to
5 µs; what is logged is built before that. So whoever logs a step of every message asks first:

    if steps_are_logged():
        log.debug("delivery.handled", **handling.described())

The configuration is read each time, so that an application may change it while a service runs.
"""

import logging
from functools import lru_cache

import structlog

__all__ = ["steps_are_logged"]


def steps_are_logged() -> bool:
    """Tell whether an event of level debug would be looked at by anybody."""
    wanted: bool = _lets_through(structlog.get_config()["wrapper_class"])
    return wanted


@lru_cache(maxsize=8)
def _lets_through(wrapper: type) -> bool:
    # Only the filtering loggers know by their class; of others each entry has to be made to find out.
    try:
        return bool(wrapper(None, [], {}).is_enabled_for(logging.DEBUG))
    except AttributeError:
        return True

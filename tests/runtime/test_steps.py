import logging
from collections.abc import Iterator

import pytest
import structlog

from messaging.runtime.steps import steps_are_logged


@pytest.fixture(autouse=True)
def _structlog_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize(("level", "wanted"), [(logging.DEBUG, True), (logging.INFO, False), (logging.ERROR, False)])
def test_steps_are_logged_where_the_level_lets_them_through(level: int, wanted: bool) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))

    assert steps_are_logged() is wanted


def test_a_level_that_changes_while_the_service_runs_is_seen() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    before = steps_are_logged()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))

    assert (before, steps_are_logged()) == (False, True)


def test_a_logger_that_filters_in_its_processors_gets_every_step() -> None:
    structlog.configure(wrapper_class=structlog.stdlib.BoundLogger, logger_factory=structlog.stdlib.LoggerFactory())

    assert steps_are_logged()

"""Lets assertions of the shared suite explain themselves as those of test files do."""

import pytest

pytest.register_assert_rewrite(
    "tests.transports.rig",
    "tests.transports.conformance_delivery",
    "tests.transports.conformance_expiry",
    "tests.transports.conformance_lifecycle",
    "tests.transports.conformance_routing",
    "tests.transports.conformance_settling",
)

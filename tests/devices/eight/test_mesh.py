"""The process that runs this folder has the devices that its tests count on."""

import jax


def test_there_are_eight_devices() -> None:
    assert jax.device_count() == 8

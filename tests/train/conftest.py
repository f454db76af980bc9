"""What several tests of the trainer stand on."""

from pathlib import Path

import pytest

from tests.train.pooled import mean, no_pictures, pictures, pooled  # noqa: F401, fixtures


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Tests of a module go to one worker of xdist, unless they say another group: they share what is made for them."""
    for item in items if config.pluginmanager.hasplugin("xdist") else ():
        if item.path.parent == Path(__file__).parent and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))

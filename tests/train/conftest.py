"""What several tests of the trainer stand on."""

from tests.train.pooled import mean, no_pictures, pictures, pooled  # noqa: F401, fixtures

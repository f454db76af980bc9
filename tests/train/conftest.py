"""What several tests of the trainer stand on."""

from tests.train.pooled import no_pictures, pictures, pooled  # noqa: F401, fixtures

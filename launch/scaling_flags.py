"""The flags of the autoscaler, for the commands that start a manager."""

from absl import flags

from jscale.cluster.config import AUTOSCALE_OFF
from jscale.plan.scaling_policy import SCALING_POLICIES


def define() -> None:
    """`--autoscale`, and between what it may decide."""
    flags.DEFINE_enum(
        "autoscale",
        AUTOSCALE_OFF,
        [AUTOSCALE_OFF, *SCALING_POLICIES],
        "How the load decides how many workers there are; anticipating costs least.",
    )
    flags.DEFINE_integer(
        "min_workers", 1, "Fewer the autoscaler never wants; 0 lets it scale to zero."
    )
    flags.DEFINE_integer("max_workers", None, "More the autoscaler never wants.")

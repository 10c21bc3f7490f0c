"""Names that clients and workers share."""

# The resource of workers that stands for slots. The others are their version, the architectures of
# the images that they can build, and KVM.
SLOT = "vm"
# The environment variable with the settings of a worker.
SETTINGS = "PARTICLE_OS_FARM_WORKER"


def kvm_of(architecture: str) -> str:
    """The resource of workers whose KVM runs machines of an architecture."""
    return f"kvm-{architecture}"

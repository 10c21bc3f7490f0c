"""Names that clients and workers share."""

# The resources of workers, apart from their version and the architectures of the images that they
# can build: slots for builds, and KVM.
SLOT, KVM = "vm", "kvm"
# The environment variable with the settings of a worker.
SETTINGS = "PARTICLE_OS_FARM_WORKER"

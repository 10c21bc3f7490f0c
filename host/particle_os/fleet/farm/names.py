"""Names that clients and workers share."""

# The resources of workers, apart from their version: slots for builds, KVM, and the architecture.
SLOT, KVM, ARCHITECTURE = "vm", "kvm", "amd64"
# The environment variable with the settings of a worker.
SETTINGS = "PARTICLE_OS_FARM_WORKER"

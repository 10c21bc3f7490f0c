"""The parts of a bootable disk: partitions, file systems, boot loaders."""

"""What a bootable disk is made of: partitions, file systems, boot loaders."""

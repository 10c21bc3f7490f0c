"""The clouds and hypervisors that take an image, each with its rules for the file.

The command that imports the file is the platform's own; particle-os talks to no cloud.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class ImportRules:
    """A platform: the ending and the kind of its files, and the command that imports one.

    The size of the disk is a multiple of `unit` bytes. `options` are those of qemu-img's format.
    `rules` is the page that the rules are from. `command` has {file} and {name} for a shell.
    """

    title: str
    ending: str
    kind: Literal["raw", "tar", "qcow2", "vpc", "vmdk"]
    rules: str
    command: str
    unit: int = MIB
    options: tuple[str, ...] = ()
    compressed: bool = False


PLATFORMS = {
    "azure": ImportRules(
        title="Microsoft Azure",
        ending="azure.vhd",
        kind="vpc",
        # Without force_size, the geometry of the footer changes the size.
        options=("subformat=fixed", "force_size=on"),
        rules="https://learn.microsoft.com/azure/virtual-machines/linux/create-upload-generic",
        command="az storage blob upload --type page --container-name images --file {file} "
        "--name {name}.vhd",
    ),
    "ec2": ImportRules(
        title="Amazon EC2",
        ending="ec2.raw",
        kind="raw",
        unit=MIB,
        rules="https://docs.aws.amazon.com/vm-import/latest/userguide/vmimport-import-snapshot.html",
        command="aws s3 cp {file} s3://BUCKET/{name}.raw",
    ),
    "gce": ImportRules(
        title="Google Compute Engine",
        ending="gce.tar.gz",
        kind="tar",
        unit=GIB,
        rules="https://cloud.google.com/compute/docs/images/import-existing-image",
        command="gcloud storage cp {file} gs://BUCKET/{name}.tar.gz",
    ),
    "openstack": ImportRules(
        title="OpenStack",
        ending="openstack.qcow2",
        kind="qcow2",
        options=("compat=1.1",),
        compressed=True,
        rules="https://docs.openstack.org/glance/latest/user/formats.html",
        command="openstack image create --disk-format qcow2 --container-format bare "
        "--property hw_disk_bus=virtio --file {file} {name}",
    ),
    "proxmox": ImportRules(
        title="Proxmox VE",
        ending="proxmox.qcow2",
        kind="qcow2",
        options=("compat=1.1",),
        rules="https://pve.proxmox.com/pve-docs/qm.1.html",
        command="qm set VMID --scsi0 local-lvm:0,import-from={file}",
    ),
    "vmware": ImportRules(
        title="VMware vSphere",
        ending="vmware.vmdk",
        kind="vmdk",
        options=("subformat=streamOptimized", "adapter_type=lsilogic", "compat6=on"),
        rules="https://github.com/vmware/open-vmdk",
        command="govc import.vmdk {file}",
    ),
}

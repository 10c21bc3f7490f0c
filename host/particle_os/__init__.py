"""particle-os: builds bootable Debian images as an ordinary user and proves that they boot."""

__version__ = "0.1.0"

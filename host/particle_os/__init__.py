"""particle-os: builds bootable Debian images as an ordinary user and proves that they boot."""

from importlib.metadata import version

__version__ = version("particle-os")

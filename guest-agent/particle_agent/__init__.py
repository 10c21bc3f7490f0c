"""The part of particle-os that runs as root inside the throwaway helper VM.

It uses the standard library only: the host sends it to the VM as one zipapp, which
``python3 -I -S`` starts. The host imports the stage classes and the wire types from this package.
This package imports nothing from the host.
"""

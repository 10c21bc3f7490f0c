"""The part of particle-os that runs as root inside the throwaway helper VM.

Standard library only: the host ships it as one zipapp and starts it with ``python3 -I -S``.
The host imports the stage classes and the wire types from here; nothing here imports the host.
"""

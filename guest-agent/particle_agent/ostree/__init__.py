"""Images that update themselves: a system as an OSTree commit, and a disk that boots it.

https://ostreedev.github.io/ostree/ describes commits, deployments and the layout of a system.
"""

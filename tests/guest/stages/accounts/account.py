"""An account that tests of the users stage make."""

from particle_agent.stages.accounts.users import User, Users

KEY = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f "
    "someone@example"
)


def make(target, **options):
    Users(users=(User(**options),)).run(target)

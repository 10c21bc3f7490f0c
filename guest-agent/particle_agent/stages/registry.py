"""All stages. `make generate` writes this file from the stages themselves; do not edit it."""

from typing import get_args

from particle_agent.stages.accounts.groups import Groups
from particle_agent.stages.accounts.users import Users
from particle_agent.stages.contents.cleanup import Cleanup
from particle_agent.stages.contents.files import Files
from particle_agent.stages.contents.run import Run
from particle_agent.stages.output.export import Export, Publish
from particle_agent.stages.output.ostree import Ostree
from particle_agent.stages.output.qemu import Qemu
from particle_agent.stages.settings.hostname import Hostname
from particle_agent.stages.settings.keyboard import Keyboard
from particle_agent.stages.settings.locale import Locale
from particle_agent.stages.settings.network import Network
from particle_agent.stages.settings.services import Services
from particle_agent.stages.settings.timezone import Timezone
from particle_agent.stages.software.apt import Apt
from particle_agent.stages.software.bootstrap import Bootstrap
from particle_agent.stages.software.kernel import Kernel
from particle_agent.stages.software.sources import Sources

RecipeStage = (
    Apt
    | Cleanup
    | Files
    | Groups
    | Hostname
    | Kernel
    | Keyboard
    | Locale
    | Network
    | Ostree
    | Qemu
    | Run
    | Services
    | Sources
    | Timezone
    | Users
)
RECIPE_STAGES: tuple[type, ...] = get_args(RecipeStage)
# The stages that the host may send: those of recipes, and those that only particle-os itself uses.
ALL_STAGES: tuple[type, ...] = (
    *RECIPE_STAGES,
    Bootstrap,
    Export,
    Publish,
)

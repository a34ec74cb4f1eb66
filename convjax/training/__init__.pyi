from . import backend as backend
from . import checkpoint as checkpoint
from . import devices as devices
from . import diagnostics as diagnostics
from . import divergence as divergence
from . import feed as feed
from . import loop as loop
from . import steps as steps

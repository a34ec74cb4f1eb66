from . import catalog as catalog
from . import npm as npm
from . import pipeline as pipeline
from . import reading as reading
from . import sources as sources
from .catalog import BUILT_IN as BUILT_IN

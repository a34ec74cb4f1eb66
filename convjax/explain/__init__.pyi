from . import activations as activations
from . import filters as filters
from . import pictures as pictures
from . import saliency as saliency
from . import sliding as sliding

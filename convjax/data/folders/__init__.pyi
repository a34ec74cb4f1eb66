from . import cats_vs_dogs as cats_vs_dogs
from . import folder as folder
from . import image_set as image_set
from . import images as images

from . import array_images as array_images
from . import names as names
from . import network as network
from . import reading as reading
from . import without_tensorflow as without_tensorflow
from .array_images import ArrayImages as ArrayImages
from .reading import open_prepared as open_prepared
from .reading import read_split as read_split

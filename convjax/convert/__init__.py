"""Networks to and from Keras's files: `.keras`, `.weights.h5` and the older `.h5`. Needs the extra `convjax[keras]`.

Start with `keras_layers`, the table of the layers that both sides have. `writing` builds the network in Keras and lets
Keras save it. `reading` takes files from anyone and never hands them to Keras, which looks up classes that a file
names: a process of its own reads text and arrays (`contents`), and `architecture` turns the text into a plan.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

from . import answer as answer
from . import figures as figures
from . import html as html
from . import report as report

from . import answer as answer
from . import figures as figures
from . import html as html
from . import origin as origin
from . import report as report
from .figures import chart_box as chart_box
from .report import write_report as write_report

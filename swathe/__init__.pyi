from models import *
from pipeline import *
from train import *

__version__: str

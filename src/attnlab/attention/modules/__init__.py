"""One attention module per file, with its paper and formula at the top.

Importing this package imports every file, and the decorator of a class registers its names: a new module is
one new file.
"""

from importlib import import_module
from pkgutil import iter_modules

for _file in iter_modules(__path__, prefix=f"{__name__}."):
    import_module(_file.name)

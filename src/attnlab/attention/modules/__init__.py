"""One attention module a file, each with its paper and its formula on top.

A file in this folder is in the registry: importing this package imports every file, and the decorator above a
class gives it its names. So a new module is one new file, and ``ls`` shows what there is.
"""

from importlib import import_module
from pkgutil import iter_modules

for _file in iter_modules(__path__, prefix=f"{__name__}."):
    import_module(_file.name)

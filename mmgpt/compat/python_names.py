"""Python names of an earlier release: accepted for one release, with a warning that names the new one."""

import warnings
from collections.abc import Callable
from functools import wraps


def warn_renamed(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn the caller of an old name; a `stacklevel` of 3 blames the caller of the function that warns."""
    text = f"{old} is called {new} now; the next release does not accept the old name"
    warnings.warn(text, FutureWarning, stacklevel=stacklevel)


def renamed_arguments(**names: str) -> Callable[[type], type]:
    """Class decorator that accepts earlier names of the constructor's keyword arguments, as old=new."""

    def decorate(cls: type) -> type:
        init = cls.__init__

        @wraps(init)
        def accept_old_names(self, *args, **kwargs) -> None:
            for old in names.keys() & kwargs.keys():
                warn_renamed(f"{cls.__name__}({old}=...)", f"{names[old]}=...")
                kwargs[names[old]] = kwargs.pop(old)
            init(self, *args, **kwargs)

        cls.__init__ = accept_old_names
        return cls

    return decorate

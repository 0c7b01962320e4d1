"""Importing this module imports transformers' generation without scikit-learn.

transformers imports scikit-learn, and SciPy and pandas with it, for a threshold of assisted generation, which nothing
here uses: a quarter of the time that it takes to import what a chat needs (transformers 5.17). Where generation has
been imported before, nothing changes; MMEngine's optimizers import it, too.
"""

import transformers.utils

_is_available = transformers.utils.is_sklearn_available
transformers.utils.is_sklearn_available = lambda: False
try:
    import transformers.generation.candidate_generator  # noqa: F401 imported for what it leaves out
finally:
    transformers.utils.is_sklearn_available = _is_available

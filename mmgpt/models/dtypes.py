"""The dtypes that a config gives to the components of a model."""

import torch


def float_dtype(name: str, argument: str, *others: str) -> torch.dtype:
    """The dtype of weights with a name such as 'bfloat16'.

    Args:
        name: from a config.
        argument: where the config has it, for the message.
        others: further names that the argument can have.

    Raises:
        ValueError: there is no such dtype, or it is not one of numbers that layers compute with.
    """
    dtype = getattr(torch, str(name), None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point or dtype.itemsize < 2:
        choices = ", ".join((*others, "float32", "bfloat16", "float16"))
        raise ValueError(f"{argument}={name!r}: choose one of {choices}")
    return dtype

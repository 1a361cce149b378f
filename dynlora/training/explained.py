"""Errors of other libraries before the first step, as one sentence that says what to change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from dynlora.config import RunConfig
from dynlora.errors import ConfigError, DynloraError, first_line

logger = logging.getLogger(__name__)


@contextmanager
def explained(config: RunConfig, *, while_: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Turn whatever fails inside the block into a ConfigError; the traceback goes to the log at level debug.

    Args:
        config: of the run.
        while_: asked when something fails; where it says no, the error stays what it is.

    Raises:
        ConfigError: in the place of an error that is not ours.
    """
    try:
        yield
    except (DynloraError, OSError):  # of files and disks, which another model does not mend
        raise
    except Exception as error:  # whatever a model, a tokenizer or a method raises
        if not while_():
            raise
        logger.debug("before the first step", exc_info=True)
        raise ConfigError(_sentence(config, error)) from error


def _sentence(config: RunConfig, error: Exception) -> str:
    """Return the settings to change, and why."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error):
        return f"train.batch_size={config.train.batch_size}: the memory does not suffice; lower it or data.max_length"
    return (
        f"model.name={config.model.name}: cannot be trained with strategy.name={config.strategy.name} "
        f"({first_line(error)}); use another model or another method"
    )

"""Discovery of classes: those that the modules of a package define, and those of installed plug-ins.

A plug-in is a package that declares entry points of a group, such as `dynlora.strategies`, each naming a class.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import TypeVar

from dynlora.errors import first_line

T = TypeVar("T")

GROUPS: Mapping[str, str] = {
    "strategies": "methods",
    "tasks": "tasks",
    "kinds": "kinds of run",
    "panels": "figures of a run",
}
"""What plug-ins bring, by the last word of the group of entry points: `dynlora.strategies` and so on."""

logger = logging.getLogger(__name__)


def classes_in(
    package: ModuleType, base: type[T], module_of: Callable[[pkgutil.ModuleInfo], str]
) -> Iterator[tuple[str, type[T]]]:
    """Yield the concrete subclasses that the modules of a package define, each with the name of its file or folder.

    Args:
        package: whose files and folders are looked at, in the order of their names.
        base: what the classes are subclasses of.
        module_of: returns the module to look into, below the package; empty leaves it out.
    """
    for item in pkgutil.iter_modules(package.__path__):
        if not (name := module_of(item)):
            continue
        module = importlib.import_module(f"{package.__name__}.{name}")
        for value in vars(module).values():
            is_own = isinstance(value, type) and value.__module__ == module.__name__
            if is_own and issubclass(value, base) and not inspect.isabstract(value):
                yield item.name, value


def plugged_in(group: str, base: type[T]) -> dict[str, type[T]]:
    """Return the classes that installed plug-ins bring, by the names they declare; what is broken is told and left out.

    Args:
        group: a key of `GROUPS`.
        base: what each class must be a subclass of.
    """
    classes: dict[str, type[T]] = {}
    for point in sorted(_points(group), key=lambda point: (point.name, point.value)):
        value = _loaded(point)
        if value is None:
            continue
        if not (isinstance(value, type) and issubclass(value, base)) or inspect.isabstract(value):
            logger.warning("%s is left out: it must be a concrete subclass of %s", _about(point), base.__name__)
        elif point.name in classes:
            logger.warning("%s is left out: another plug-in has the name %s", _about(point), point.name)
        else:
            classes[point.name] = value
    return classes


def declared(group: str) -> frozenset[str]:
    """Return the names that installed plug-ins declare in a group, without loading them."""
    return frozenset(point.name for point in _points(group))


def versions(group: str) -> list[str]:
    """Return a line for each plug-in of a group, another one when its package changes its version; none is loaded."""
    return sorted(f"{point.name} = {point.value} of {_package(point)}" for point in _points(group))


def joined(own: Mapping[str, T], plugins: Mapping[str, T]) -> dict[str, T]:
    """Return what dynlora and plug-ins bring; dynlora's own names stay its own."""
    for name in sorted(set(own) & set(plugins)):
        logger.warning("plug-in %s is left out: dynlora has that name; give it another one", name)
    return {**plugins, **own}


def installed() -> list[dict[str, str]]:
    """Return every declared plug-in: group, name, package with version, the class it names, and why it has none."""
    points = [point for group in GROUPS for point in _points(group)]
    return [
        {"group": point.group, "name": point.name, "package": _package(point), "class": point.value} | _problem(point)
        for point in sorted(points, key=lambda point: (point.group, point.name))
    ]


def _problem(point: EntryPoint) -> dict[str, str]:
    """Return why an entry point cannot be imported; nothing where it can."""
    value = _load(point.value)
    return {"problem": f"cannot be imported: {first_line(value)}"} if isinstance(value, BaseException) else {}


def _points(group: str) -> Iterable[EntryPoint]:
    """Return the entry points of a group."""
    return entry_points(group=f"dynlora.{group}")


def _loaded(point: EntryPoint) -> object | None:
    """Return what an entry point names, None where importing it fails: a plug-in must not break the rest."""
    value = _load(point.value)
    if isinstance(value, BaseException):
        logger.warning("%s is left out: %s", _about(point), first_line(value))
        return None
    return value


@functools.cache
def _load(value: str) -> object:
    """Return an object by `module:name`, or the error of its import, which is tried once: it is the code of others."""
    try:
        return EntryPoint("", value, "").load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # `sys.exit` too
        return error


def _package(point: EntryPoint) -> str:
    """Return name and version of the package that declares an entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else ""


def _about(point: EntryPoint) -> str:
    return f"plug-in {point.name} of {point.group} ({_package(point) or point.value})"

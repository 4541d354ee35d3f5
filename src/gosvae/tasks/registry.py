"""Tasks by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from gosvae.errors import ConfigError, unknown_name
from gosvae.experts.base import TaskExpert
from gosvae.plugins import find_plugin, made_by, plugin_names
from gosvae.tasks.base import AnyTask, Task
from gosvae.tasks.detection import Detection
from gosvae.tasks.features import Features
from gosvae.tasks.maps import Depth, Keypoints, Lanes
from gosvae.tasks.segmentation import Segmentation

TASKS: Mapping[str, type[AnyTask]] = MappingProxyType(
    {each.name: each for each in (Segmentation, Detection, Depth, Keypoints, Lanes, Features)}
)
"""Tasks of the package by their names."""


def load_task(expert: TaskExpert) -> AnyTask:
    """Return the task of an expert: one of `TASKS`, or one that another package registered as `gosvae.tasks`.

    Raises:
        ConfigError: no task has the name that the expert gives, or a plugin fails.
    """
    known = TASKS.get(expert.task)
    if known is not None:
        return known(expert.info)
    found: tuple[Any, str] | None = find_plugin("tasks", expert.task)
    if found is None:
        raise ConfigError(unknown_name("task", expert.task, [*TASKS, *plugin_names("tasks")]))
    task: AnyTask = made_by(found[0], expert.task, Task, expert.info)
    return task

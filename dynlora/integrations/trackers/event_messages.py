"""TensorBoard's messages: classes that protobuf makes when they are imported, so that no type checker sees them."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def _messages(name: str) -> Any:
    return import_module(f"tensorboard.{name}_pb2")


_events, _plugin = _messages("compat.proto.event"), _messages("plugins.hparams.plugin_data")

Event, SessionLog, Summary = _events.Event, _events.SessionLog, _messages("compat.proto.summary").Summary
HParamsPluginData = _plugin.HParamsPluginData
SessionStartInfo, SessionEndInfo = _plugin.SessionStartInfo, _plugin.SessionEndInfo
DecodeError = import_module("google.protobuf.message").DecodeError
Status = _messages("plugins.hparams.api").Status

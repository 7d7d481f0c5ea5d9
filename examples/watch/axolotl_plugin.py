"""axolotl: `plugins: [axolotl_plugin.StopPlugin]` in its YAML, and PYTHONPATH=examples/watch."""

from axolotl.integrations.base import BasePlugin
from stop_file import StopFile


class StopPlugin(BasePlugin):
    def add_callbacks_pre_trainer(self, cfg, model):
        return [StopFile()]

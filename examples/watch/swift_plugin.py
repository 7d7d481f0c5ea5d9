"""ms-swift: `swift sft --external_plugins examples/watch/swift_plugin.py --callbacks undersong …`.

ms-swift 3 has no `--callbacks`; there the first option alone is enough.
"""

from stop_file import StopFile

try:
    from swift.callbacks import callbacks_map
except ImportError:  # ms-swift 3
    from swift.plugin import extra_callbacks

    extra_callbacks.append(StopFile())
else:
    callbacks_map["undersong"] = lambda args, trainer: StopFile()

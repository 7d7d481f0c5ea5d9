"""Axes that are still to be embedded by a package that is not here, told by plans and before a run makes anything.

Vectors that are in the store need no encoder, so the ledger is asked first.  Imports none of the packages.
"""

from __future__ import annotations

from undersong.pipeline.ledger import Ledger, look
from undersong.pipeline.workshop import Workshop
from undersong.store import Store
from undersong.study import Study
from undersong.types import UndersongError


def uninstalled_lines(study: Study, ledger: Ledger) -> tuple[str, ...]:
    """One sentence an axis: what it needs, and how it is installed."""
    from undersong.encoders.options import parse_encoder

    todo = {one.encoder for one in ledger.asked.values() if one.stage == "embeddings" and one.found is None}
    needed = (axis for axis, spec in study.axes.items() if parse_encoder(spec).canonical in todo)
    lacking = _uninstalled(study)
    return tuple(f"Axis {axis}: {lacking[axis]}" for axis in needed if axis in lacking)


def refuse_uninstalled(study: Study, shop: Workshop) -> None:
    """Stops before the first stage what would stop in the middle of them."""
    if not isinstance(shop.store, Store) or not _uninstalled(study):
        return
    if lines := uninstalled_lines(study, look(study, shop.store.root, shop.loading)):
        raise UndersongError(lines[0])


def _uninstalled(study: Study) -> dict[str, str]:
    """Axis -> what its encoder lacks here."""
    from undersong.encoders import check_installed

    lacking = {}
    for axis, spec in study.axes.items():
        try:
            check_installed(spec)
        except UndersongError as error:
            lacking[axis] = str(error)
    return lacking

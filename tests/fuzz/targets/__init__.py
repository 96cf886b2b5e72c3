"""Every target by name: what opens it in an empty folder."""

from __future__ import annotations

from ..case import Opener
from . import artifacts, bundles, configurations, devices, models, profiles, serving, settings, tokenizers

TARGETS: dict[str, Opener] = {
    **models.TARGETS,
    **configurations.TARGETS,
    **tokenizers.TARGETS,
    **bundles.TARGETS,
    **artifacts.TARGETS,
    **devices.TARGETS,
    **profiles.TARGETS,
    **settings.TARGETS,
    **serving.TARGETS,
}

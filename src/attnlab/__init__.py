"""attnlab: what does this attention module do for my CNN, and at what cost?

In your own code:

    import attnlab

    attnlab.attach(network, "ela_s", mode="rezero")          # attention, into any network, in place
    net = attnlab.load("lightning_logs/x/version_0/checkpoints/best.ckpt")
    net.predict("photo.jpg").save("out.png")

Names are imported on first use: ``attach`` needs only torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnlab.attention import attach, build_attention, list_attentions, register_attention
    from attnlab.errors import AttnlabError
    from attnlab.prediction import load
    from attnlab.tasks.optimization import learning_rate_schedule, parameter_groups

__version__ = "0.1.0"

_HOMES = {
    "AttnlabError": "attnlab.errors",
    "attach": "attnlab.attention",
    "build_attention": "attnlab.attention",
    "learning_rate_schedule": "attnlab.tasks.optimization",
    "list_attentions": "attnlab.attention",
    "load": "attnlab.prediction",
    "parameter_groups": "attnlab.tasks.optimization",
    "register_attention": "attnlab.attention",
}

__all__ = [
    "AttnlabError",
    "__version__",
    "attach",
    "build_attention",
    "learning_rate_schedule",
    "list_attentions",
    "load",
    "parameter_groups",
    "register_attention",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'attnlab' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

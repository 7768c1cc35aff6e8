"""The methods of the video evaluation: how frames are solved and faces are cut out."""

from dataclasses import dataclass, replace

from evaluation.settings import ClipSettings
from inference.engines import Engine
from inference.streams import Streams
from models import LDEQ
from models.rwr import VARIANTS, RwRConfig
from utils.crops import CROP_RULES, CropRule

FAITHFUL = "faithful"
ORIGINAL_CROP, STEADY_CROP = "original", "steady"


@dataclass(frozen=True)
class Method:
    """How clips are inferred.

    Attributes:
        variant: Name of one of `models.rwr.VARIANTS`; None if every frame is solved on its own.
        crop: Name of one of `utils.crops.CROP_RULES`.
    """

    variant: str | None
    crop: str = ORIGINAL_CROP

    @property
    def name(self) -> str:
        """Its name in files and results.json, for example "rwr" or "no_rwr_on_steady_crops"."""
        solving = "no_rwr" if self.variant is None else "rwr"
        if self.variant not in (None, FAITHFUL):
            solving += f"_{self.variant}"
        return solving if self.crop == ORIGINAL_CROP else f"{solving}_on_{self.crop}_crops"

    @property
    def title(self) -> str:
        """Its name in tables and figures, without the crop."""
        if self.variant is None:
            return "no RwR"
        return "RwR" if self.variant == FAITHFUL else f"RwR, {self.variant}"

    @property
    def rule(self) -> CropRule:
        """How the faces are cut out."""
        return CROP_RULES[self.crop]

    def rwr(self, settings: ClipSettings) -> RwRConfig | None:
        """RwR with the evaluations of the command line; None if every frame is solved on its own."""
        return None if self.variant is None else rwr_of(self.variant, settings)

    def streams(self, model: LDEQ, engine: Engine, slots: int, settings: ClipSettings) -> Streams:
        """The object that solves the frames of parallel clips in so many slots."""
        return Streams(model, self.rwr(settings), precision=settings.precision, batch_size=slots, engine=engine)


def rwr_of(variant: str, settings: ClipSettings) -> RwRConfig:
    """A variant of RwR with the evaluations of the command line."""
    return replace(
        VARIANTS[variant],
        max_iters=settings.rwr_max_iters,
        final_evaluation=not settings.rwr_take_one_less_inference_step,
    )


def scored_method(settings: ClipSettings) -> Method:
    """The method whose numbers are printed."""
    return Method(settings.rwr_variant if settings.rwr else None, settings.crop)


def methods_of(settings: ClipSettings) -> tuple[Method, ...]:
    """All the methods of a run.

    A comparison has every solving method with every crop, which separates the effect of RwR from that of the crop.
    """
    if settings.compare:
        variants = dict.fromkeys((None, FAITHFUL, settings.rwr_variant))
        crops = dict.fromkeys((ORIGINAL_CROP, settings.crop, STEADY_CROP))
        return tuple(Method(variant, crop) for crop in crops for variant in variants)
    if settings.plot:
        return Method(None, settings.crop), Method(settings.rwr_variant, settings.crop)
    return (scored_method(settings),)

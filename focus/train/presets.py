"""The presets `small` and `photos` of `Settings`: runs for a machine without a card."""

from __future__ import annotations

from dataclasses import replace

from focus.data.occluders import OCCLUDERS
from focus.data.sampling import PoseSettings
from focus.data.synthetic import SyntheticSettings
from focus.losses import ReconstructionWeights, SegmentationWeights, TeachingWeights
from focus.nets import NetworkSettings
from focus.train.config import (
    DataSettings,
    FaceSettings,
    GuardSettings,
    LogSettings,
    OptimiserSettings,
    Rate,
    RobustSettings,
    Settings,
    StageSettings,
)


def small() -> Settings:
    """A run of synthetic faces for two CPU cores."""
    return Settings(
        image_size=64,
        batch_size=16,
        face=FaceSettings(detail="small", identity=12, expression=6, albedo=10),
        network=NetworkSettings.preset("small"),
        # At 64 pixels landmarks are worth less, beside pixels, than at 224; a narrower world is learned sooner. Beside
        # pixels of weight 5, the paper's 0.06 of L_area moves next to nothing, and costs a third of the time.
        data=DataSettings(
            synthetic=SyntheticSettings(
                pose=PoseSettings(
                    yaw=10.0,
                    yaw_limit=40.0,
                    wide_yaw_fraction=0.08,
                    pitch=5.0,
                    pitch_limit=12.0,
                    roll=4.0,
                    roll_limit=10.0,
                ),
                degradation=0.6,
                landmark_noise=0.005,
            )
        ),
        reconstruction_weights=ReconstructionWeights(
            pixel=5.0, robust=1.0, perceptual=0.0, landmark=1e-4, regularisation=0.3, area=0.0
        ),
        # The features of the filter bank are mostly edges, which occluders have, too: what hides them should pay by the
        # pixel (L_area), not by the feature (L_preserve).
        segmentation_weights=SegmentationWeights(area=0.6, preserve=0.5, binary=3.0),
        stages=StageSettings(initialise=6_000, segmentation=250, joint=2_200, cycle=550, segmentation_in_cycle=250),
        robust=RobustSettings(anneal=0.7, sigma_start=0.3),
        binary_ramp=400,
        optimiser=OptimiserSettings(
            name="adam",
            initialise=Rate(1e-3, cosine_end=0.05, warm_up=100),
            segmentation=Rate(2e-3, cosine_end=0.2),
            joint_reconstruction=Rate(3e-4, cosine_end=0.1),
            joint_segmentation=Rate(1e-3, cosine_end=0.1),
            gradient_clip=5.0,
        ),
        guard=GuardSettings(window=100),
        log=LogSettings(every=20, checkpoint_every=500, validate_every=500),
    )


def photos() -> Settings:
    """A run that is taught by the fits of a folder of photos."""
    return replace(
        small(),
        teacher="fit",
        precision="auto",
        keep=0.5,
        relight=True,
        disturbance=1.0,
        workers=1,
        image_size=112,
        face=FaceSettings(detail="small", identity=50, expression=46, albedo=40),
        network=NetworkSettings.preset("photos"),
        data=DataSettings(
            synthetic=SyntheticSettings(
                cast=1.0,
                aged_fraction=0.5,
                occluders=tuple(kind for kind in OCCLUDERS if kind not in ("beard", "face_paint")),
                pose=PoseSettings(wide_yaw_fraction=0.3),
            ),
            synthetic_fraction=0.25,
        ),
        # A quarter of the pixels of faces that are shown are hidden, of those in photos about a tenth.
        teaching_weights=TeachingWeights(seen=2.0),
        stages=StageSettings(
            initialise=300, segmentation=600, again=300, joint=400, cycle=200, segmentation_in_cycle=100
        ),
        anchor=3.0,
        optimiser=OptimiserSettings(
            name="adam",
            initialise=Rate(5e-4, cosine_end=0.02, warm_up=50),
            segmentation=Rate(2e-3, cosine_end=0.02, warm_up=50),
            again=Rate(5e-4, cosine_end=0.02, warm_up=50),
            joint_reconstruction=Rate(1e-4, cosine_end=0.1),
            joint_segmentation=Rate(2e-4, cosine_end=0.1),
            gradient_clip=5.0,
        ),
    )

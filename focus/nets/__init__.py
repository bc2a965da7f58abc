"""Networks: the residual encoder, the U-Net, recognition features and the alignment that they need."""

from focus.nets.alignment import align_faces, estimate_similarity, five_from_68
from focus.nets.arcface import ArcFaceFeatures
from focus.nets.encoder import ReconstructionNetwork, build_reconstruction_network
from focus.nets.features import FeatureExtractor, FilterBank
from focus.nets.resnet import ResNet
from focus.nets.settings import EncoderSettings, NetworkSettings, SegmentationSettings
from focus.nets.unet import SegmentationNetwork, build_segmentation_network
from focus.nets.weights import load_weights, read_weights

__all__ = [
    "ArcFaceFeatures",
    "EncoderSettings",
    "FeatureExtractor",
    "FilterBank",
    "NetworkSettings",
    "ReconstructionNetwork",
    "ResNet",
    "SegmentationNetwork",
    "SegmentationSettings",
    "align_faces",
    "build_reconstruction_network",
    "build_segmentation_network",
    "estimate_similarity",
    "five_from_68",
    "load_weights",
    "read_weights",
]

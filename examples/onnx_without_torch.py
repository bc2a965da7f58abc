"""The exported networks without torch and without FOCUS: a crop in, the mask of the visible face out.

    focus export --out out/onnx
    python examples/onnx_without_torch.py out/onnx crop.png mask.png

Needs onnxruntime, numpy and Pillow. The face is drawn as a painter would, the farthest triangle first.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw

folder, crop, out = map(Path, sys.argv[1:])
about, model = json.loads((folder / "about.json").read_text()), np.load(folder / "face.npz")
size, camera, faces = about["image_size"], about["camera"], model["faces"]
photo = np.asarray(Image.open(crop).convert("RGB").resize((size, size)), np.float32).transpose(2, 0, 1)[None] / 255
encoder, segmenter = (onnxruntime.InferenceSession(folder / f"{n}.onnx") for n in ("reconstruction", "segmentation"))
identity, expression, albedo, (angles,), (place,), (light,) = encoder.run(None, {"images": photo})
# The shape, seen by the camera, and its normals.
mesh = model["mean_shape"] + np.tensordot(identity[0], model["identity_basis"], 1)
mesh = mesh + np.tensordot(expression[0], model["expression_basis"], 1)
(ca, cb, cc), (sa, sb, sc) = np.cos(angles), np.sin(angles)
about_x, about_y = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]]), np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
about_z = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
points = mesh @ (np.diag([1, -1, -1]) @ about_x @ about_y @ about_z).T + place + [0, 0, camera["distance_mm"]]
screen = camera["focal"] * points[:, :2] / points[:, 2:] + camera["center"]
across = np.cross(points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]])
x, y, z = (across / np.linalg.norm(across, axis=1, keepdims=True).clip(1e-9)).T
# Spherical harmonics to second order: the light.
k = np.sqrt(np.array([1 / 4, 3 / 4, 15 / 4, 5 / 16, 15 / 16]) / np.pi)
basis = [
    k[0] + 0 * x,
    -k[1] * y,
    k[1] * z,
    -k[1] * x,
    k[2] * x * y,
    -k[2] * y * z,
    k[3] * (3 * z * z - 1),
    -k[2] * x * z,
]
basis = np.stack([*basis, k[4] * (x * x - y * y)], 1)
colors = (model["mean_albedo"] + np.tensordot(albedo[0], model["albedo_basis"], 1))[faces].mean(1) * (basis @ light.T)
drawn, face = Image.new("RGB", (size, size)), Image.new("L", (size, size))
for i in np.argsort(-points[faces, 2].mean(1)):
    if (across[i] * points[faces[i, 0]]).sum() < 0:  # it looks at the camera
        corners = [tuple(corner) for corner in screen[faces[i]]]
        ImageDraw.Draw(drawn).polygon(corners, fill=tuple(int(c) for c in (255 * colors[i]).clip(0, 255)))
        ImageDraw.Draw(face).polygon(corners, fill=255)
rendered = np.asarray(drawn, np.float32).transpose(2, 0, 1)[None] / 255
inside = np.asarray(face, np.float32)[None, None] / 255
(mask,) = segmenter.run(None, {"rendered": rendered, "photo": photo, "face": inside})
Image.fromarray((255 * mask[0, 0] * inside[0, 0]).astype(np.uint8)).save(out)

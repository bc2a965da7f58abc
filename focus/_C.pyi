"""The compiled module: kernels as plain functions of DLPack capsules, which must be contiguous. Use `focus.ops`.

Tensors are annotated as `object`; None stands for an output that is not wanted, and for working memory that only CUDA
needs. The last two arguments are a number of threads, for the CPU, and a stream, for CUDA. What an argument must be is
said in csrc/*/*.h; what is not is refused with `TypeError` or `ValueError`.
"""

NEIGHBOR_TILE: tuple[int, int]
PIECE_CAPACITY: int
PIECE_LIST_SIZE: int
PIXEL_CHUNK: int
RENDER_SUMS: int
SH_CHUNK: int
compiler: str
cuda_architectures: str
cuda_version: str | None
cuda_missing: str | None
"""Why this build has no CUDA kernels, in one line; None where it has them."""

def cuda_driver() -> str:
    """The newest CUDA that the driver here serves; empty without a driver, and in builds without CUDA kernels."""

def build_topology(faces: object, vertex_count: int, offsets: object, corners: object, /) -> int: ...
def rasterize(
    screen_vertices: object,
    faces: object,
    cull: int,
    perspective_correct: bool,
    barycentric: object,
    depth: object,
    face_index: object,
    nearest: object,
    pieces: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def rasterize_backward(
    screen_vertices: object,
    faces: object,
    offsets: object,
    corners: object,
    perspective_correct: bool,
    face_index: object,
    grad_barycentric: object,
    grad_depth: object,
    boxes: object,
    pieces: object,
    piece_sums: object,
    grad_corners: object,
    grad_screen_vertices: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def rasterize_tangent(
    screen_vertices: object,
    faces: object,
    perspective_correct: bool,
    face_index: object,
    screen_vertices_tangent: object,
    barycentric_tangent: object,
    depth_tangent: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def interpolate(
    attributes: object,
    faces: object,
    face_index: object,
    barycentric: object,
    values: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def interpolate_backward(
    attributes: object,
    faces: object,
    offsets: object,
    corners: object,
    face_index: object,
    barycentric: object,
    grad_values: object,
    boxes: object,
    pieces: object,
    piece_sums: object,
    grad_corners: object,
    grad_attributes: object,
    grad_barycentric: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def render(
    screen_vertices: object,
    attributes: object,
    faces: object,
    cull: int,
    perspective_correct: bool,
    image: object,
    mask: object,
    face_index: object,
    nearest: object,
    pieces: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def render_backward(
    screen_vertices: object,
    attributes: object,
    faces: object,
    offsets: object,
    corners: object,
    perspective_correct: bool,
    face_index: object,
    grad_image: object,
    boxes: object,
    pieces: object,
    piece_sums: object,
    grad_corners: object,
    grad_screen_vertices: object,
    grad_attributes: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def render_tangent(
    screen_vertices: object,
    attributes: object,
    faces: object,
    perspective_correct: bool,
    face_index: object,
    screen_vertices_tangent: object,
    attributes_tangent: object,
    image_tangent: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def find_seams(faces: object, neighbors: object, seams: object, /) -> int: ...
def antialias(
    image: object,
    screen_vertices: object,
    faces: object,
    neighbors: object,
    face_index: object,
    seams: object,
    values: object,
    edges: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def antialias_backward(
    image: object,
    screen_vertices: object,
    faces: object,
    offsets: object,
    corners: object,
    edges: object,
    grad_values: object,
    boxes: object,
    pieces: object,
    piece_sums: object,
    grad_corners: object,
    grad_image: object,
    grad_screen_vertices: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def antialias_tangent(
    image: object,
    screen_vertices: object,
    faces: object,
    edges: object,
    image_tangent: object,
    screen_vertices_tangent: object,
    values_tangent: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def vertex_normals(
    vertices: object, faces: object, offsets: object, corners: object, normals: object, threads: int, stream: int, /
) -> None: ...
def vertex_normals_backward(
    vertices: object,
    faces: object,
    offsets: object,
    corners: object,
    grad_normals: object,
    grad_sums: object,
    grad_vertices: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def vertex_normals_tangent(
    vertices: object,
    faces: object,
    offsets: object,
    corners: object,
    vertices_tangent: object,
    normals_tangent: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def sh_shading(
    normals: object, albedo: object, coefficients: object, colors: object, threads: int, stream: int, /
) -> None: ...
def sh_shading_backward(
    normals: object,
    albedo: object,
    coefficients: object,
    grad_colors: object,
    grad_normals: object,
    grad_albedo: object,
    partial_coefficients: object,
    grad_coefficients: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def sh_shading_tangent(
    normals: object,
    albedo: object,
    coefficients: object,
    normals_tangent: object,
    albedo_tangent: object,
    coefficients_tangent: object,
    colors_tangent: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def neighbor_min(
    target: object,
    reconstruction: object,
    mask: object,
    window: int,
    power: int,
    mean: bool,
    argmin: object,
    distance: object,
    loss: object,
    partial_sums: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def neighbor_min_backward(
    target: object,
    reconstruction: object,
    mask: object,
    window: int,
    power: int,
    mean: bool,
    argmin: object,
    grad_distance: object,
    grad_loss: object,
    grad_target: object,
    grad_reconstruction: object,
    grad_mask: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def masked_photometric(
    target: object,
    reconstruction: object,
    mask: object,
    loss: object,
    sums: object,
    partial_sums: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def masked_photometric_backward(
    target: object,
    reconstruction: object,
    mask: object,
    sums: object,
    grad_loss: object,
    grad_target: object,
    grad_reconstruction: object,
    grad_mask: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def outlier_robust(
    target: object,
    reconstruction: object,
    mask: object,
    sigma: float,
    cutoff: float,
    loss: object,
    inlier: object,
    partial_sums: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def outlier_robust_backward(
    target: object,
    reconstruction: object,
    mask: object,
    sigma: float,
    cutoff: float,
    grad_loss: object,
    grad_target: object,
    grad_reconstruction: object,
    grad_mask: object,
    threads: int,
    stream: int,
    /,
) -> None: ...
def set_avx2(wanted: bool) -> bool: ...
def set_avx512(wanted: bool) -> bool: ...
def uses_avx2() -> bool: ...
def uses_avx512() -> bool: ...

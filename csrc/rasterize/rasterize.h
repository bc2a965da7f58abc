// Rasterization of triangles into face index, barycentric coordinates and depth, and its gradient.
#pragma once

#include "common/face_scratch.h"
#include "common/stream.h"
#include "common/tensor_view.h"

namespace focus {

enum class Cull : int { kNone = 0, kClockwise = 1, kCounterclockwise = 2 };  // as seen on the screen, y down

template <typename T>
struct RasterizeParameters {
    TensorView<T const, 3> screen_vertices;  // [B, V, 3]: x, y in pixels, z = depth > 0 in mm
    TensorView<int32_t const, 2> faces;      // [F, 3]
    Cull cull;                               // which winding is left out
    bool perspective_correct;                // barycentrics and depth linear in space, not on the screen
    TensorView<T, 4> barycentric;            // [B, H, W, 3] out, 0 in the background
    TensorView<T, 3> depth;                  // [B, H, W] out, mm, 0 in the background
    TensorView<int32_t, 3> face_index;       // [B, H, W] out, -1 in the background
    TensorView<int64_t, 3> nearest;          // [B, H, W] scratch: (depth bits, face) minima; CUDA only
    TensorView<int64_t, 1> pieces;           // [kPieceListSize] scratch, see pixel_boxes.h; CUDA only
};

template <typename T>
struct RasterizeBackwardParameters {
    TensorView<T const, 3> screen_vertices;  // [B, V, 3]
    TensorView<int32_t const, 2> faces;      // [F, 3]
    TensorView<int32_t const, 1> offsets;    // [V + 1] see topology.h
    TensorView<int32_t const, 1> corners;    // [3 F]
    bool perspective_correct;
    TensorView<int32_t const, 3> face_index;  // [B, H, W]
    TensorView<T const, 4> grad_barycentric;  // [B, H, W, 3], optional
    TensorView<T const, 3> grad_depth;        // [B, H, W], optional
    FaceScratch scratch;                      // with 9 sums; CUDA only
    TensorView<T, 4> grad_corners;            // [B, F, 3, 3] scratch, one gradient per face and corner; CUDA only
    TensorView<T, 3> grad_screen_vertices;    // [B, V, 3] out
};

// Forward mode: how barycentrics and depth move with the vertices.
template <typename T>
struct RasterizeTangentParameters {
    TensorView<T const, 3> screen_vertices;  // [B, V, 3]
    TensorView<int32_t const, 2> faces;      // [F, 3]
    bool perspective_correct;
    TensorView<int32_t const, 3> face_index;         // [B, H, W]
    TensorView<T const, 3> screen_vertices_tangent;  // [B, V, 3]
    TensorView<T, 4> barycentric_tangent;            // [B, H, W, 3] out
    TensorView<T, 3> depth_tangent;                  // [B, H, W] out
};

template <typename T>
void rasterize_cpu(RasterizeParameters<T> const& p, int threads);
template <typename T>
void rasterize_backward_cpu(RasterizeBackwardParameters<T> const& p, int threads);
template <typename T>
void rasterize_tangent_cpu(RasterizeTangentParameters<T> const& p, int threads);

#if defined(FOCUS_WITH_CUDA)
void rasterize_cuda(RasterizeParameters<float> const& p, Stream stream);
void rasterize_backward_cuda(RasterizeBackwardParameters<float> const& p, Stream stream);
void rasterize_tangent_cuda(RasterizeTangentParameters<float> const& p, Stream stream);
#endif

}  // namespace focus

// Vertex attributes at the pixels of a mesh: rasterization and interpolation in one, and the gradient. Of the pixels only the face is kept
// for it; their barycentrics are worked out again.
#pragma once

#include "common/face_scratch.h"
#include "common/stream.h"
#include "common/tensor_view.h"
#include "rasterize/rasterize.h"

namespace focus {

template <typename T>
struct RenderParameters {
    TensorView<T const, 3> screen_vertices;  // [B, V, 3]: x, y in pixels, z = depth > 0 in mm
    TensorView<T const, 3> attributes;       // [B or 1, V, C]; 1 is shared by the batch
    TensorView<int32_t const, 2> faces;      // [F, 3]
    Cull cull;
    bool perspective_correct;
    TensorView<T, 4> image;             // [B, C, H, W] out, 0 in the background
    TensorView<T, 4> mask;              // [B, 1, H, W] out, 1 where a face is, else 0
    TensorView<int32_t, 3> face_index;  // [B, H, W] out, -1 in the background
    TensorView<int64_t, 3> nearest;     // [B, H, W] scratch: (depth bits, face) minima; CUDA only
    TensorView<int64_t, 1> pieces;      // [kPieceListSize] scratch, see pixel_boxes.h; CUDA only
};

template <typename T>
struct RenderBackwardParameters {
    TensorView<T const, 3> screen_vertices;  // [B, V, 3]
    TensorView<T const, 3> attributes;       // [B or 1, V, C]
    TensorView<int32_t const, 2> faces;      // [F, 3]
    TensorView<int32_t const, 1> offsets;    // [V + 1] see topology.h
    TensorView<int32_t const, 1> corners;    // [3 F]
    bool perspective_correct;
    TensorView<int32_t const, 3> face_index;  // [B, H, W]
    TensorView<T const, 4> grad_image;        // [B, C, H, W]
    FaceScratch scratch;                      // with kRenderSums sums; CUDA only
    TensorView<T, 4> grad_corners;            // [B, F, 3, 3 + C] scratch, position and attributes of each corner; CUDA only
    TensorView<T, 3> grad_screen_vertices;    // [B, V, 3] out, optional
    TensorView<T, 3> grad_attributes;         // [B or 1, V, C] out, optional
};

// Forward mode: how the image moves with the vertices and their attributes.
template <typename T>
struct RenderTangentParameters {
    TensorView<T const, 3> screen_vertices;  // [B, V, 3]
    TensorView<T const, 3> attributes;       // [B or 1, V, C]
    TensorView<int32_t const, 2> faces;      // [F, 3]
    bool perspective_correct;
    TensorView<int32_t const, 3> face_index;         // [B, H, W]
    TensorView<T const, 3> screen_vertices_tangent;  // [B, V, 3], optional
    TensorView<T const, 3> attributes_tangent;       // [B or 1, V, C], optional
    TensorView<T, 4> image_tangent;                  // [B, C, H, W] out
};

// The CUDA kernels add up positions and attributes of the three corners together for images of so many channels, and apart for others.
constexpr int kRenderChannels = 3;
constexpr int kRenderSums = 3 * (3 + kRenderChannels);

template <typename T>
void render_cpu(RenderParameters<T> const& p, int threads);
template <typename T>
void render_backward_cpu(RenderBackwardParameters<T> const& p, int threads);
template <typename T>
void render_tangent_cpu(RenderTangentParameters<T> const& p, int threads);

#if defined(FOCUS_WITH_CUDA)
void render_cuda(RenderParameters<float> const& p, Stream stream);
void render_backward_cuda(RenderBackwardParameters<float> const& p, Stream stream);
void render_tangent_cuda(RenderTangentParameters<float> const& p, Stream stream);
#endif

}  // namespace focus

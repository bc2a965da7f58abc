// Smooth coverage at silhouette edges, and its gradient to the image and to the vertices on the screen.
#pragma once

#include "common/face_scratch.h"
#include "common/stream.h"
#include "common/tensor_view.h"

namespace focus {

// An edge of a mesh: three numbers of int32.
struct Seam {
    int32_t corner;      // that lies opposite of it
    int32_t other_face;  // the one other face at it; -1 for a border, and where there are more
    int32_t sign;        // -1 where both faces run along it the same way: their turns then say the opposite
};

template <typename T>
struct AntialiasParameters {
    TensorView<T const, 4> image;             // [B, C, H, W]
    TensorView<T const, 3> screen_vertices;   // [B, V, 3]
    TensorView<int32_t const, 2> faces;       // [F, 3]
    TensorView<int32_t const, 1> neighbors;   // [3 F] the next corner that lies opposite of the same edge, in a circle
    TensorView<int32_t const, 3> face_index;  // [B, H, W], -1 in the background
    TensorView<T, 4> values;                  // [B, C, H, W] out
    // Of each pixel's pairs with the one on its right and the one below: the silhouette edge that blends them, as the corner
    // 3 * face + k that it lies opposite of; -1 where there is none.
    TensorView<int32_t, 4> edges;     // [B, H, 2, W] out
    TensorView<Seam const, 1> seams;  // of find_seams; optional, and of no use on CUDA
};

template <typename T>
struct AntialiasBackwardParameters {
    TensorView<T const, 4> image;            // [B, C, H, W]
    TensorView<T const, 3> screen_vertices;  // [B, V, 3]
    TensorView<int32_t const, 2> faces;      // [F, 3]
    TensorView<int32_t const, 1> offsets;    // [V + 1]
    TensorView<int32_t const, 1> corners;    // [3 F]
    TensorView<int32_t const, 4> edges;      // [B, H, 2, W]
    TensorView<T const, 4> grad_values;      // [B, C, H, W]
    FaceScratch scratch;                     // with 6 sums; CUDA only, given with grad_screen_vertices
    TensorView<T, 4> grad_corners;           // [B, F, 3, 2] scratch, likewise
    TensorView<T, 4> grad_image;             // [B, C, H, W] out, optional
    TensorView<T, 3> grad_screen_vertices;   // [B, V, 3] out, optional; 0 for z
};

// Forward mode: how the image moves with its colours and with the vertices.
template <typename T>
struct AntialiasTangentParameters {
    TensorView<T const, 4> image;                    // [B, C, H, W]
    TensorView<T const, 3> screen_vertices;          // [B, V, 3]
    TensorView<int32_t const, 2> faces;              // [F, 3]
    TensorView<int32_t const, 4> edges;              // [B, H, 2, W]
    TensorView<T const, 4> image_tangent;            // [B, C, H, W], optional
    TensorView<T const, 3> screen_vertices_tangent;  // [B, V, 3], optional; z is not looked at
    TensorView<T, 4> values_tangent;                 // [B, C, H, W] out
};

// All edges of a mesh, in the order of their corners; returns how many there are, at most one for each corner. They follow from faces and
// neighbors alone, so that they may be kept with these.
int64_t find_seams(TensorView<int32_t const, 2> const& faces, TensorView<int32_t const, 1> const& neighbors, Seam* seams);

template <typename T>
void antialias_cpu(AntialiasParameters<T> const& p, int threads);
template <typename T>
void antialias_backward_cpu(AntialiasBackwardParameters<T> const& p, int threads);
template <typename T>
void antialias_tangent_cpu(AntialiasTangentParameters<T> const& p, int threads);

#if defined(FOCUS_WITH_CUDA)
void antialias_cuda(AntialiasParameters<float> const& p, Stream stream);
void antialias_backward_cuda(AntialiasBackwardParameters<float> const& p, Stream stream);
void antialias_tangent_cuda(AntialiasTangentParameters<float> const& p, Stream stream);
#endif

}  // namespace focus

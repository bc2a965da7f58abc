// Vertex attributes at the pixels of a rasterized image, and the gradient.
#pragma once

#include "common/face_scratch.h"
#include "common/stream.h"
#include "common/tensor_view.h"

namespace focus {

template <typename T>
struct InterpolateParameters {
    TensorView<T const, 3> attributes;        // [B or 1, V, C]; 1 is shared by the batch
    TensorView<int32_t const, 2> faces;       // [F, 3]
    TensorView<int32_t const, 3> face_index;  // [B, H, W], -1 in the background
    TensorView<T const, 4> barycentric;       // [B, H, W, 3]
    TensorView<T, 4> values;                  // [B, C, H, W] out, 0 in the background
};

template <typename T>
struct InterpolateBackwardParameters {
    TensorView<T const, 3> attributes;        // [B or 1, V, C]
    TensorView<int32_t const, 2> faces;       // [F, 3]
    TensorView<int32_t const, 1> offsets;     // [V + 1] see topology.h
    TensorView<int32_t const, 1> corners;     // [3 F]
    TensorView<int32_t const, 3> face_index;  // [B, H, W]
    TensorView<T const, 4> barycentric;       // [B, H, W, 3]
    TensorView<T const, 4> grad_values;       // [B, C, H, W]
    FaceScratch scratch;                      // with 3 sums; CUDA only, given with grad_attributes
    TensorView<T, 4> grad_corners;            // [B, F, 3, C] scratch, likewise
    TensorView<T, 3> grad_attributes;         // [B or 1, V, C] out, optional
    TensorView<T, 4> grad_barycentric;        // [B, H, W, 3] out, optional
};

template <typename T>
void interpolate_cpu(InterpolateParameters<T> const& p, int threads);
template <typename T>
void interpolate_backward_cpu(InterpolateBackwardParameters<T> const& p, int threads);

#if defined(FOCUS_WITH_CUDA)
void interpolate_cuda(InterpolateParameters<float> const& p, Stream stream);
void interpolate_backward_cuda(InterpolateBackwardParameters<float> const& p, Stream stream);
#endif

}  // namespace focus

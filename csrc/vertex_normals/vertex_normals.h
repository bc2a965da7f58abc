// Unit vertex normals along the area-weighted sum of the face normals, and the gradient.
#pragma once

#include "common/stream.h"
#include "common/tensor_view.h"

namespace focus {

template <typename T>
struct VertexNormalsParameters {
    TensorView<T const, 3> vertices;       // [B, V, 3]
    TensorView<int32_t const, 2> faces;    // [F, 3]
    TensorView<int32_t const, 1> offsets;  // [V + 1] see topology.h
    TensorView<int32_t const, 1> corners;  // [3 F]
    TensorView<T, 3> normals;              // [B, V, 3] out; 0 where the sum is 0
};

template <typename T>
struct VertexNormalsBackwardParameters {
    TensorView<T const, 3> vertices;       // [B, V, 3]
    TensorView<int32_t const, 2> faces;    // [F, 3]
    TensorView<int32_t const, 1> offsets;  // [V + 1]
    TensorView<int32_t const, 1> corners;  // [3 F]
    TensorView<T const, 3> grad_normals;   // [B, V, 3]
    TensorView<T, 3> grad_sums;            // [B, V, 3] scratch: gradient of the unnormalised sum
    TensorView<T, 3> grad_vertices;        // [B, V, 3] out
};

// Forward mode: how the normals move with the vertices.
template <typename T>
struct VertexNormalsTangentParameters {
    TensorView<T const, 3> vertices;          // [B, V, 3]
    TensorView<int32_t const, 2> faces;       // [F, 3]
    TensorView<int32_t const, 1> offsets;     // [V + 1]
    TensorView<int32_t const, 1> corners;     // [3 F]
    TensorView<T const, 3> vertices_tangent;  // [B, V, 3]
    TensorView<T, 3> normals_tangent;         // [B, V, 3] out
};

template <typename T>
void vertex_normals_cpu(VertexNormalsParameters<T> const& p, int threads);
template <typename T>
void vertex_normals_backward_cpu(VertexNormalsBackwardParameters<T> const& p, int threads);
template <typename T>
void vertex_normals_tangent_cpu(VertexNormalsTangentParameters<T> const& p, int threads);

#if defined(FOCUS_WITH_CUDA)
void vertex_normals_cuda(VertexNormalsParameters<float> const& p, Stream stream);
void vertex_normals_backward_cuda(VertexNormalsBackwardParameters<float> const& p, Stream stream);
void vertex_normals_tangent_cuda(VertexNormalsTangentParameters<float> const& p, Stream stream);
#endif

}  // namespace focus

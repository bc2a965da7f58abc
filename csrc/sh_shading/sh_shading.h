// Vertex colours under second-order spherical-harmonics light (Ramamoorthi and Hanrahan, 2001), and the gradient.
#pragma once

#include "common/stream.h"
#include "common/tensor_view.h"

namespace focus {

constexpr int kShBands = 9;     // l = 0..2, m = -l..l
constexpr int kShEntries = 27;  // of the light: three colours
// The gradient of the light is a sum over vertices, made in one order everywhere, so that it has the same bits: the vertices of a segment
// one after another, then the segments of a chunk, then the chunks.
constexpr int kShSegment = 32;
constexpr int kShChunk = 256;

template <typename T>
struct ShShadingParameters {
    TensorView<T const, 3> normals;       // [B, V, 3] unit, camera space
    TensorView<T const, 3> albedo;        // [B, V, 3]
    TensorView<T const, 3> coefficients;  // [B, 3, 9]
    TensorView<T, 3> colors;              // [B, V, 3] out
};

template <typename T>
struct ShShadingBackwardParameters {
    TensorView<T const, 3> normals;         // [B, V, 3]
    TensorView<T const, 3> albedo;          // [B, V, 3]
    TensorView<T const, 3> coefficients;    // [B, 3, 9]
    TensorView<T const, 3> grad_colors;     // [B, V, 3]
    TensorView<T, 3> grad_normals;          // [B, V, 3] out, optional
    TensorView<T, 3> grad_albedo;           // [B, V, 3] out, optional
    TensorView<T, 4> partial_coefficients;  // [B, ceil(V / 256), 3, 9] scratch, given with grad_coefficients
    TensorView<T, 3> grad_coefficients;     // [B, 3, 9] out, optional
};

// Forward mode: how the colours move with what makes them.
template <typename T>
struct ShShadingTangentParameters {
    TensorView<T const, 3> normals;               // [B, V, 3]
    TensorView<T const, 3> albedo;                // [B, V, 3]
    TensorView<T const, 3> coefficients;          // [B, 3, 9]
    TensorView<T const, 3> normals_tangent;       // [B, V, 3], optional
    TensorView<T const, 3> albedo_tangent;        // [B, V, 3], optional
    TensorView<T const, 3> coefficients_tangent;  // [B, 3, 9], optional
    TensorView<T, 3> colors_tangent;              // [B, V, 3] out
};

template <typename T>
void sh_shading_cpu(ShShadingParameters<T> const& p, int threads);
template <typename T>
void sh_shading_backward_cpu(ShShadingBackwardParameters<T> const& p, int threads);
template <typename T>
void sh_shading_tangent_cpu(ShShadingTangentParameters<T> const& p, int threads);

#if defined(FOCUS_WITH_CUDA)
void sh_shading_cuda(ShShadingParameters<float> const& p, Stream stream);
void sh_shading_backward_cuda(ShShadingBackwardParameters<float> const& p, Stream stream);
void sh_shading_tangent_cuda(ShShadingTangentParameters<float> const& p, Stream stream);
#endif

}  // namespace focus

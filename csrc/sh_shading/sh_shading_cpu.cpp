#include <algorithm>

#include "common/parallel.h"
#include "common/simd.h"
#include "sh_shading/sh_shading_math.h"

namespace focus {

namespace {

// The light of one image, each coefficient in all lanes: done once, since without AVX2 it goes through memory.
template <typename T>
struct LightLanes {
    FOCUS_INLINE explicit LightLanes(T const* from) {
        for (int entry = 0; entry < kShEntries; ++entry) coefficients[entry] = all_lanes(from[entry]);
    }
    Lanes<T> coefficients[kShEntries];
};

// One chunk of the vertices of an image, from vertex `first` of the batch on. The lanes hold vertices of different segments, so that
// each adds up its own segment in the order of the vertices.
template <typename T>
FOCUS_INLINE inline void backward_chunk(ShShadingBackwardParameters<T> const& p, int64_t first, int64_t count, T const* coefficients,
                                        T* chunk_sum) {
    constexpr int kLanes = LanesOf<T>::kCount;
    constexpr int64_t kStride = 3 * kShSegment;
    LightLanes<T> const of_light(coefficients);
    for (int64_t begin = 0; begin < count; begin += kLanes * kShSegment) {
        Lanes<T> light[3][kShSegment], basis[kShSegment][kShBands];
        int64_t const length = std::min<int64_t>(kShSegment, count - begin);
        for (int64_t i = 0; i < length; ++i) {
            int64_t const v = begin + i, at = 3 * (first + v), vertices = (count - v + kShSegment - 1) / kShSegment;  // then zeros
            ShadeGradient<Lanes<T>> gradient;
            shade_gradient(load3_lanes(p.normals.data + at, kStride, vertices), load3_lanes(p.albedo.data + at, kStride, vertices),
                           of_light.coefficients, load3_lanes(p.grad_colors.data + at, kStride, vertices), &gradient);
            if (p.grad_normals) store3_lanes(p.grad_normals.data + at, kStride, vertices, gradient.normal);
            if (p.grad_albedo) store3_lanes(p.grad_albedo.data + at, kStride, vertices, gradient.albedo);
            for (int c = 0; c < 3; ++c) light[c][i] = gradient.light[c];
            for (int band = 0; band < kShBands; ++band) basis[i][band] = gradient.basis[band];
        }
        if (!p.partial_coefficients) continue;
        for (int c = 0; c < 3; ++c) {  // one colour at a time: its nine sums stay in registers
            Lanes<T> sums[kShBands] = {};
            for (int64_t i = 0; i < length; ++i) {
                for (int band = 0; band < kShBands; ++band) sums[band] += light[c][i] * basis[i][band];
            }
            for (int band = 0; band < kShBands; ++band) {
                for (int lane = 0; lane < kLanes; ++lane) chunk_sum[c * kShBands + band] += sums[band][lane];
            }
        }
    }
}

}  // namespace

template <typename T>
void sh_shading_cpu(ShShadingParameters<T> const& p, int threads) {
    int64_t const vertex_count = p.colors.size[1], chunks = chunk_count(vertex_count);
    parallel_for(p.colors.size[0] * chunks, threads, [&](int64_t task) {
        int64_t const b = task / chunks, begin = task % chunks * kChunk, end = std::min(begin + kChunk, vertex_count);
        vectorized([&]() FOCUS_INLINE {
            LightLanes<T> const light(p.coefficients.data + b * kShEntries);
            for (int64_t v = begin; v < end; v += LanesOf<T>::kCount) {
                int64_t const at = 3 * (b * vertex_count + v);
                store3_lanes(
                    p.colors.data + at, 3, end - v,
                    shade(load3_lanes(p.normals.data + at, 3, end - v), load3_lanes(p.albedo.data + at, 3, end - v), light.coefficients));
            }
        });
    });
}

template <typename T>
void sh_shading_backward_cpu(ShShadingBackwardParameters<T> const& p, int threads) {
    int64_t const batch = p.normals.size[0], vertex_count = p.normals.size[1];
    int64_t const chunks = (vertex_count + kShChunk - 1) / kShChunk;
    parallel_for(batch * chunks, threads, [&](int64_t task) {
        int64_t const b = task / chunks, begin = task % chunks * kShChunk, end = std::min(begin + kShChunk, vertex_count);
        T chunk_sum[kShEntries] = {};
        vectorized([&]() FOCUS_INLINE {
            backward_chunk(p, b * vertex_count + begin, end - begin, p.coefficients.data + b * kShEntries, chunk_sum);
        });
        if (p.partial_coefficients) std::copy_n(chunk_sum, kShEntries, p.partial_coefficients.data + task * kShEntries);
    });
    if (!p.grad_coefficients) return;
    for (int64_t i = 0; i < batch * kShEntries; ++i) {
        T total = T(0);
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            total += p.partial_coefficients.data[(i / kShEntries * chunks + chunk) * kShEntries + i % kShEntries];
        }
        p.grad_coefficients.data[i] = total;
    }
}

template <typename T>
void sh_shading_tangent_cpu(ShShadingTangentParameters<T> const& p, int threads) {
    int64_t const vertex_count = p.normals.size[1], chunks = chunk_count(vertex_count);
    parallel_for(p.normals.size[0] * chunks, threads, [&](int64_t task) {
        int64_t const b = task / chunks, begin = task % chunks * kChunk, end = std::min(begin + kChunk, vertex_count);
        vectorized([&]() FOCUS_INLINE {
            for (int64_t v = begin; v < end; ++v) shade_tangent(p, b, b * vertex_count + v);
        });
    });
}

template void sh_shading_cpu(ShShadingParameters<float> const&, int);
template void sh_shading_cpu(ShShadingParameters<double> const&, int);
template void sh_shading_backward_cpu(ShShadingBackwardParameters<float> const&, int);
template void sh_shading_backward_cpu(ShShadingBackwardParameters<double> const&, int);
template void sh_shading_tangent_cpu(ShShadingTangentParameters<float> const&, int);
template void sh_shading_tangent_cpu(ShShadingTangentParameters<double> const&, int);

}  // namespace focus

#include <algorithm>

#include "common/parallel.h"
#include "sh_shading/sh_shading_math.h"

namespace focus {

template <typename T>
void sh_shading_cpu(ShShadingParameters<T> const& p, int threads) {
    int64_t const vertex_count = p.colors.size[1];
    parallel_for_chunks(p.colors.size[0] * vertex_count, threads, [&](int64_t begin, int64_t end, int64_t) {
        for (int64_t i = begin; i < end; ++i) {
            shade(p.normals.data + 3 * i, p.albedo.data + 3 * i, p.coefficients.data + i / vertex_count * p.coefficients.stride(),
                  p.colors.data + 3 * i);
        }
    });
}

template <typename T>
void sh_shading_backward_cpu(ShShadingBackwardParameters<T> const& p, int threads) {
    int64_t const batch = p.normals.size[0], vertex_count = p.normals.size[1];
    int64_t const chunks = (vertex_count + kShChunk - 1) / kShChunk;
    parallel_for(batch * chunks, threads, [&](int64_t task) {
        int64_t const b = task / chunks, begin = task % chunks * kShChunk, end = std::min(begin + kShChunk, vertex_count);
        T chunk_sum[kShEntries] = {};
        for (int64_t first = begin; first < end; first += kShSegment) {
            T sum[kShEntries] = {};
            for (int64_t i = b * vertex_count + first; i < b * vertex_count + std::min(first + kShSegment, end); ++i) {
                T basis[kShBands], grad_light[3];
                shade_gradient(p.normals.data + 3 * i, p.albedo.data + 3 * i, p.coefficients.data + b * kShEntries,
                               p.grad_colors.data + 3 * i, p.grad_normals ? p.grad_normals.data + 3 * i : nullptr,
                               p.grad_albedo ? p.grad_albedo.data + 3 * i : nullptr, basis, grad_light);
                for (int entry = 0; entry < kShEntries; ++entry) sum[entry] += grad_light[entry / kShBands] * basis[entry % kShBands];
            }
            for (int entry = 0; entry < kShEntries; ++entry) chunk_sum[entry] += sum[entry];
        }
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

template void sh_shading_cpu(ShShadingParameters<float> const&, int);
template void sh_shading_cpu(ShShadingParameters<double> const&, int);
template void sh_shading_backward_cpu(ShShadingBackwardParameters<float> const&, int);
template void sh_shading_backward_cpu(ShShadingBackwardParameters<double> const&, int);

}  // namespace focus

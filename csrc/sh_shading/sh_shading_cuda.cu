#include "common/launch.h"
#include "sh_shading/sh_shading_math.h"

namespace focus {

namespace {

// One thread per vertex.
__global__ void __launch_bounds__(kBlockSize) sh_shading_kernel(ShShadingParameters<float> p) {
    FOCUS_GRID_STRIDE_LOOP(i, p.colors.size[0] * p.colors.size[1]) {
        store3(p.colors.data + 3 * i, shade(load3(p.normals.data + 3 * i), load3(p.albedo.data + 3 * i),
                                            p.coefficients.data + quotient(i, p.colors.size[1]) * kShEntries));
    }
}

// One block per chunk of vertices of an image. One thread per vertex first; then one per segment and coefficient of the light.
__global__ void __launch_bounds__(kShChunk) sh_shading_backward_kernel(ShShadingBackwardParameters<float> p, int64_t chunks) {
    constexpr int kSegments = kShChunk / kShSegment;
    __shared__ float basis[kShChunk][kShBands];
    __shared__ float grad_light[kShChunk][3];
    __shared__ float sums[kSegments][kShEntries];
    int64_t const vertex_count = p.normals.size[1];
    int const thread = threadIdx.x;
    for (int64_t task = blockIdx.x; task < p.normals.size[0] * chunks; task += gridDim.x) {
        int64_t const b = quotient(task, chunks), begin = (task - b * chunks) * kShChunk;
        int const count = static_cast<int>(vertex_count - begin < kShChunk ? vertex_count - begin : kShChunk);
        if (thread < count) {
            int64_t const i = b * vertex_count + begin + thread;
            ShadeGradient<float> gradient;
            shade_gradient(load3(p.normals.data + 3 * i), load3(p.albedo.data + 3 * i), p.coefficients.data + b * kShEntries,
                           load3(p.grad_colors.data + 3 * i), &gradient);
            if (p.grad_normals) store3(p.grad_normals.data + 3 * i, gradient.normal);
            if (p.grad_albedo) store3(p.grad_albedo.data + 3 * i, gradient.albedo);
            for (int band = 0; band < kShBands; ++band) basis[thread][band] = gradient.basis[band];
            for (int c = 0; c < 3; ++c) grad_light[thread][c] = gradient.light[c];
        }
        if (!p.partial_coefficients) continue;  // for all threads alike: the barriers are reached by all or none
        __syncthreads();
        int const segment = thread / kShEntries, entry = thread % kShEntries;
        if (segment < kSegments) {
            int const end = (segment + 1) * kShSegment < count ? (segment + 1) * kShSegment : count;
            float sum = 0.0f;
            for (int v = segment * kShSegment; v < end; ++v) sum += grad_light[v][entry / kShBands] * basis[v][entry % kShBands];
            sums[segment][entry] = sum;
        }
        __syncthreads();
        if (thread < kShEntries) {
            float sum = 0.0f;
            for (int s = 0; s < kSegments; ++s) sum += sums[s][thread];
            p.partial_coefficients.data[task * kShEntries + thread] = sum;
        }  // the next write to `sums` is behind the next barrier
    }
}

// One thread per coefficient adds the chunks in order.
__global__ void __launch_bounds__(kBlockSize) add_chunks_kernel(ShShadingBackwardParameters<float> p, int64_t chunks) {
    FOCUS_GRID_STRIDE_LOOP(i, p.normals.size[0] * kShEntries) {
        int64_t const b = quotient(i, kShEntries), entry = i - b * kShEntries;
        float total = 0.0f;
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            total += p.partial_coefficients.data[(b * chunks + chunk) * kShEntries + entry];
        }
        p.grad_coefficients.data[i] = total;
    }
}

// One thread per vertex.
__global__ void __launch_bounds__(kBlockSize) sh_shading_tangent_kernel(ShShadingTangentParameters<float> p) {
    FOCUS_GRID_STRIDE_LOOP(i, p.normals.size[0] * p.normals.size[1]) { shade_tangent(p, quotient(i, p.normals.size[1]), i); }
}

}  // namespace

void sh_shading_cuda(ShShadingParameters<float> const& p, Stream stream) {
    int64_t const count = p.colors.size[0] * p.colors.size[1];
    launch("sh_shading", sh_shading_kernel, grid_size(count), kBlockSize, stream, p);
}

void sh_shading_backward_cuda(ShShadingBackwardParameters<float> const& p, Stream stream) {
    int64_t const chunks = (p.normals.size[1] + kShChunk - 1) / kShChunk;
    launch("sh_shading_backward", sh_shading_backward_kernel, grid_size(p.normals.size[0] * chunks, 1), kShChunk, stream, p, chunks);
    if (p.grad_coefficients) {
        launch("sh_shading_add_chunks", add_chunks_kernel, grid_size(p.normals.size[0] * kShEntries), kBlockSize, stream, p, chunks);
    }
}

void sh_shading_tangent_cuda(ShShadingTangentParameters<float> const& p, Stream stream) {
    int64_t const count = p.normals.size[0] * p.normals.size[1];
    launch("sh_shading_tangent", sh_shading_tangent_kernel, grid_size(count), kBlockSize, stream, p);
}

}  // namespace focus

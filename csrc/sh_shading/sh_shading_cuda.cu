#include "common/launch.h"
#include "sh_shading/sh_shading_math.h"

namespace focus {

namespace {

// One thread per vertex.
__global__ void sh_shading_kernel(ShShadingParameters<float> p) {
    int64_t const vertex_count = p.colors.size[1];
    FOCUS_GRID_STRIDE_LOOP(i, p.colors.size[0] * vertex_count) {
        shade(p.normals.data + 3 * i, p.albedo.data + 3 * i, p.coefficients.data + i / vertex_count * (3 * kShBands),
              p.colors.data + 3 * i);
    }
}

// One block per chunk of kShChunk vertices of one image, one thread per vertex; the 27 lighting sums go through shuffles within a warp,
// then over the warps in order: a fixed tree, so the same bits on every run.
__global__ void sh_shading_backward_kernel(ShShadingBackwardParameters<float> p, int64_t chunks) {
    __shared__ float warp_sums[kShChunk / kWarpSize][3 * kShBands];
    int64_t const vertex_count = p.normals.size[1];
    int const lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
    for (int64_t task = blockIdx.x; task < p.normals.size[0] * chunks; task += gridDim.x) {
        int64_t const b = task / chunks, v = task % chunks * kShChunk + threadIdx.x;
        float basis[kShBands] = {}, grad_light[3] = {};
        if (v < vertex_count) {
            int64_t const i = b * vertex_count + v;
            shade_gradient(p.normals.data + 3 * i, p.albedo.data + 3 * i, p.coefficients.data + b * 3 * kShBands,
                           p.grad_colors.data + 3 * i, p.grad_normals ? p.grad_normals.data + 3 * i : nullptr,
                           p.grad_albedo ? p.grad_albedo.data + 3 * i : nullptr, basis, grad_light);
        }
        if (p.partial_coefficients) {  // the same for all threads of the grid, so the barriers below are reached by all or none
#pragma unroll
            for (int entry = 0; entry < 3 * kShBands; ++entry) {
                float sum = grad_light[entry / kShBands] * basis[entry % kShBands];
                for (int step = kWarpSize / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
                if (lane == 0) warp_sums[warp][entry] = sum;
            }
            __syncthreads();
            if (threadIdx.x < 3 * kShBands) {
                float sum = 0.0f;
                for (int w = 0; w < kShChunk / kWarpSize; ++w) sum += warp_sums[w][threadIdx.x];
                p.partial_coefficients.data[task * 3 * kShBands + threadIdx.x] = sum;
            }
            __syncthreads();
        }
    }
}

// One thread per coefficient adds the chunks in order.
__global__ void sum_partial_coefficients_kernel(ShShadingBackwardParameters<float> p, int64_t chunks) {
    constexpr int64_t kEntries = 3 * kShBands;
    FOCUS_GRID_STRIDE_LOOP(i, p.normals.size[0] * kEntries) {
        float total = 0.0f;
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            total += p.partial_coefficients.data[(i / kEntries * chunks + chunk) * kEntries + i % kEntries];
        }
        p.grad_coefficients.data[i] = total;
    }
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
        launch("sum_partial_coefficients", sum_partial_coefficients_kernel, grid_size(p.normals.size[0] * 3 * kShBands), kBlockSize, stream,
               p, chunks);
    }
}

}  // namespace focus

// CUDA vocabulary of the .cu files: launch sizes, the launch itself, and the check after it. Under FOCUS_EMULATE_CUDA the same source
// runs on the CPU (emulation.h).
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "common/macros.h"
#include "common/stream.h"

#if defined(FOCUS_EMULATE_CUDA)
#include "common/emulation.h"
#else
#include "common/cuda_error.h"
#endif

namespace focus {

constexpr int kWarpSize = 32;
constexpr unsigned int kWholeWarp = 0xffffffffu;
#if defined(FOCUS_EMULATE_CUDA)
constexpr int kBlockSize = 64;  // two warps: all that can go wrong between warps, at a quarter of the threads
#else
constexpr int kBlockSize = 256;
#endif

// Threads of a one-dimensional launch that walks `count` items with a grid-stride loop. The grid is capped: a loop of a few trips costs
// nothing, and counts beyond 2^31 need no special case.
inline unsigned int grid_size(int64_t count, int per_block = kBlockSize) {
    constexpr int64_t kLargestGrid = 1 << 20;
    int64_t const blocks = (count + per_block - 1) / per_block;
    return static_cast<unsigned int>(blocks < kLargestGrid ? blocks : kLargestGrid);
}

// a / b for numbers >= 0. Nearly always both fit 32 bits, and a division of 64 costs the card about five of those.
FOCUS_HD int64_t quotient(int64_t a, int64_t b) {
    if (((a | b) >> 32) == 0) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
    return a / b;
}

#if !defined(FOCUS_EMULATE_CUDA)
// Runs `kernel` on the caller's stream and turns a failed launch into an exception. Nothing synchronises.
template <typename... Parameters, typename... Arguments>
void launch(char const* name, void (*kernel)(Parameters...), unsigned int blocks, unsigned int threads, Stream stream,
            Arguments... arguments) {
    if (blocks == 0) return;
    kernel<<<blocks, threads, 0, stream>>>(arguments...);
    cudaError_t const error = cudaGetLastError();
    if (error != cudaSuccess) {
        throw std::runtime_error(std::string("focus: CUDA launch of ") + name + " failed: " + explain_cuda_error(error));
    }
}
#endif

// Of the current card.
inline unsigned int multiprocessor_count() {
#if defined(FOCUS_EMULATE_CUDA)
    return 1;
#else
    int device = 0, count = 0;
    if (cudaGetDevice(&device) != cudaSuccess || cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) {
        return 1;  // the launch that follows says why
    }
    return static_cast<unsigned int>(count);
#endif
}

}  // namespace focus

// for (int64_t item ...) over [0, count), shared by all threads or by all warps of the grid.
#define FOCUS_GRID_STRIDE_LOOP(item, count)                                          \
    for (int64_t item = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, \
                 item##_step = static_cast<int64_t>(gridDim.x) * blockDim.x;         \
         item < (count); item += item##_step)
#define FOCUS_WARP_STRIDE_LOOP(item, count)                                                                      \
    for (int64_t item = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarpSize,               \
                 item##_step = static_cast<int64_t>(gridDim.x) * blockDim.x / kWarpSize, item##_count = (count); \
         item < item##_count; item += item##_step)

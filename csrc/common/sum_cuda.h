// The two stages of sum.h on CUDA: a block adds the terms of one chunk in a fixed tree; then one block adds the chunks.
#pragma once

#include "common/launch.h"

namespace focus {

constexpr int kSumBlockSize = 4 * kBlockSize;  // of the second stage, which has one block only

// The sum over the threads of a block, for all of them; every thread of the block must call. Lanes add pairwise, then warps in order.
template <typename T>
__device__ T block_sum(T value) {
    __shared__ T warp_sums[kSumBlockSize / kWarpSize];
    for (int step = kWarpSize / 2; step > 0; step /= 2) value += __shfl_xor_sync(kWholeWarp, value, step);
    if (threadIdx.x % kWarpSize == 0) warp_sums[threadIdx.x / kWarpSize] = value;
    __syncthreads();
    T total = T(0);
    for (unsigned int warp = 0; warp < blockDim.x / kWarpSize; ++warp) total += warp_sums[warp];
    __syncthreads();  // before the next call writes
    return total;
}

// The second stage, in double precision; for all threads of the one block, which all must call.
__device__ inline double sum_of_chunks(double const* partial_sums, int64_t count) {
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += partial_sums[i];
    return block_sum(sum);
}

}  // namespace focus

// Runs CUDA kernels on the CPU, for tests on machines without a card: one real thread for each CUDA thread of a block, blocks one
// after another. Real threads, not loops, so that a missing __syncthreads() or a data race is a data race here too and the thread
// sanitizer sees it.
//
// Supported: one-dimensional grids and blocks, static __shared__ memory (a function-local static: one block runs at a time),
// __syncthreads, __shfl_down_sync, __shfl_xor_sync, __shfl_sync and __ballot_sync with all lanes of the warp taking part, atomicMin on
// 64-bit integers and atomicAdd on integers. Kernels may not return before a barrier that others of their block reach.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "common/stream.h"

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
#define __restrict__ __restrict

namespace focus::emulation {

struct Index {
    unsigned int x = 0;
};

class Barrier {
  public:
    explicit Barrier(unsigned int count) : count_(count), waiting_(0) {}
    void wait() {
        std::unique_lock<std::mutex> lock(mutex_);
        unsigned int const generation = generation_;
        if (++waiting_ == count_) {
            waiting_ = 0;
            ++generation_;
            condition_.notify_all();
        } else {
            condition_.wait(lock, [&] { return generation != generation_; });
        }
    }

  private:
    std::mutex mutex_;
    std::condition_variable condition_;
    unsigned int count_, waiting_, generation_ = 0;
};

// What one block shares: its barrier, and per warp a barrier and a slot per lane for shuffles.
struct Block {
    explicit Block(unsigned int threads) : barrier(threads) {
        for (unsigned int first = 0; first < threads; first += 32) {
            warps.emplace_back(new Warp(threads - first < 32 ? threads - first : 32));
        }
    }
    struct Warp {
        explicit Warp(unsigned int lanes) : barrier(lanes) {}
        Barrier barrier;
        uint64_t slot[32] = {};
    };
    Barrier barrier;
    std::vector<std::unique_ptr<Warp>> warps;
};

inline thread_local Block* current_block = nullptr;

void run(unsigned int blocks, unsigned int threads, std::function<void()> const& kernel);  // emulation.cpp

}  // namespace focus::emulation

inline thread_local focus::emulation::Index threadIdx, blockIdx, blockDim, gridDim;

inline void __syncthreads() { focus::emulation::current_block->barrier.wait(); }

namespace focus::emulation {

// Every lane publishes its value, all meet, each reads the lane it wants, all meet again before the slots are reused.
template <typename T>
T exchange(T value, unsigned int source_lane) {
    static_assert(sizeof(T) <= sizeof(uint64_t));
    auto& warp = *current_block->warps[threadIdx.x / 32];
    std::memcpy(&warp.slot[threadIdx.x % 32], &value, sizeof(T));
    warp.barrier.wait();
    std::memcpy(&value, &warp.slot[source_lane % 32], sizeof(T));
    warp.barrier.wait();
    return value;
}

}  // namespace focus::emulation

template <typename T>
T __shfl_sync(unsigned int, T value, int lane) {
    return focus::emulation::exchange(value, static_cast<unsigned int>(lane));
}

template <typename T>
T __shfl_xor_sync(unsigned int, T value, int lane_mask) {
    return focus::emulation::exchange(value, (threadIdx.x % 32) ^ static_cast<unsigned int>(lane_mask));
}

template <typename T>
T __shfl_down_sync(unsigned int, T value, unsigned int delta) {
    unsigned int const lane = threadIdx.x % 32;
    return focus::emulation::exchange(value, lane + delta < 32 ? lane + delta : lane);
}

inline unsigned int __ballot_sync(unsigned int, int predicate) {
    unsigned int bits = 0;
    for (unsigned int lane = 0; lane < 32; ++lane) {
        bits |= (focus::emulation::exchange<int>(predicate != 0, lane) ? 1u : 0u) << lane;
    }
    return bits;
}

inline unsigned long long atomicMin(unsigned long long* address, unsigned long long value) {
    unsigned long long seen = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (value < seen && !__atomic_compare_exchange_n(address, &seen, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return seen;
}

inline int atomicAdd(int* address, int value) { return __atomic_fetch_add(address, value, __ATOMIC_RELAXED); }

namespace focus {

template <typename... Parameters, typename... Arguments>
void launch(char const*, void (*kernel)(Parameters...), unsigned int blocks, unsigned int threads, Stream,
            Arguments... arguments) {
    if (blocks == 0) return;
    emulation::run(blocks, threads, [=] { kernel(arguments...); });
}

}  // namespace focus

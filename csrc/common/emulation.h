// Runs CUDA kernels on the CPU, for tests on machines without a card: one real thread for each CUDA thread of a block, blocks one
// after another. Real threads, not loops, so that a missing __syncthreads() or a data race is a data race here too and the thread
// sanitizer sees it.
//
// Supported: one-dimensional grids and blocks, static __shared__ memory (a function-local static: one block runs at a time),
// __syncthreads, shuffles and __ballot_sync with all lanes of the warp taking part, and the integer atomics below. Kernels may not
// return before a barrier that others of their block reach.
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

struct alignas(16) float4 {
    float x, y, z, w;
};

inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
template <typename T>
void __stcs(T* to, T value) {
    *to = value;
}

struct alignas(4) uchar4 {
    unsigned char x, y, z, w;
};

namespace focus::emulation {

struct Index {
    unsigned int x = 0;
};

// Waiting threads first give way to the others, since a barrier is mostly met within one round of them, and only then go to sleep.
class Barrier {
  public:
    explicit Barrier(unsigned int count) : count_(count) {}
    void wait() {
        unsigned int const generation = generation_.load(std::memory_order_acquire);
        if (waiting_.fetch_add(1, std::memory_order_acq_rel) + 1 == count_) {
            waiting_.store(0, std::memory_order_relaxed);
            {
                std::lock_guard<std::mutex> lock(mutex_);
                generation_.store(generation + 1, std::memory_order_release);
            }
            condition_.notify_all();
            return;
        }
        for (int turn = 0; turn < kTurns; ++turn) {
            if (generation_.load(std::memory_order_acquire) != generation) return;
            std::this_thread::yield();
        }
        std::unique_lock<std::mutex> lock(mutex_);
        condition_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != generation; });
    }

  private:
    static constexpr int kTurns = 50;
    std::mutex mutex_;
    std::condition_variable condition_;
    unsigned int const count_;
    std::atomic<unsigned int> waiting_{0}, generation_{0};
};

// A warp's barrier, and a slot per lane through which its shuffles go: two sets, used in turn, so that one barrier per shuffle is enough.
struct Warp {
    explicit Warp(unsigned int lanes) : barrier(lanes) {}
    Barrier barrier;
    uint64_t slots[2][32] = {};
};

struct Block {
    explicit Block(unsigned int threads) : barrier(threads) {
        for (unsigned int first = 0; first < threads; first += 32) {
            warps.push_back(std::make_unique<Warp>(threads - first < 32 ? threads - first : 32));
        }
    }
    Barrier barrier;
    std::vector<std::unique_ptr<Warp>> warps;
};

inline thread_local Block* current_block = nullptr;
inline thread_local unsigned int current_slots = 0;

void run(unsigned int blocks, unsigned int threads, std::function<void()> const& kernel);  // emulation.cpp

}  // namespace focus::emulation

inline thread_local focus::emulation::Index threadIdx, blockIdx, blockDim, gridDim;

inline void __syncthreads() { focus::emulation::current_block->barrier.wait(); }

namespace focus::emulation {

// Every lane publishes its value, all meet, each reads what it wants of the 32 slots. A lane writes these slots again only after the
// barrier of the next exchange, which it cannot pass before all have read here.
template <typename T, typename Read>
auto exchange(T value, Read const& read) {
    static_assert(sizeof(T) <= sizeof(uint64_t));
    Warp& warp = *current_block->warps[threadIdx.x / 32];
    uint64_t* const slots = warp.slots[current_slots];
    current_slots ^= 1;
    std::memcpy(&slots[threadIdx.x % 32], &value, sizeof(T));
    warp.barrier.wait();
    return read([&](unsigned int lane) {
        T other;
        std::memcpy(&other, &slots[lane % 32], sizeof(T));
        return other;
    });
}

}  // namespace focus::emulation

template <typename T>
T __shfl_sync(unsigned int, T value, int lane) {
    return focus::emulation::exchange(value, [&](auto const& value_of) { return value_of(lane); });
}

template <typename T>
T __shfl_xor_sync(unsigned int, T value, int lane_mask) {
    return focus::emulation::exchange(value, [&](auto const& value_of) { return value_of((threadIdx.x % 32) ^ lane_mask); });
}

template <typename T>
T __shfl_down_sync(unsigned int, T value, unsigned int delta) {
    unsigned int const lane = threadIdx.x % 32;
    return focus::emulation::exchange(value, [&](auto const& value_of) { return value_of(lane + delta < 32 ? lane + delta : lane); });
}

inline unsigned int __ballot_sync(unsigned int, int predicate) {
    return focus::emulation::exchange(predicate, [](auto const& value_of) {
        unsigned int bits = 0;
        for (unsigned int lane = 0; lane < 32; ++lane) bits |= (value_of(lane) ? 1u : 0u) << lane;
        return bits;
    });
}

inline int __ffs(int bits) { return __builtin_ffs(bits); }

namespace focus::emulation {

template <typename T, typename Combine>
T atomic_update(T* address, Combine const& combine) {
    T seen = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(address, &seen, combine(seen), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return seen;
}

}  // namespace focus::emulation

// For the types that CUDA has them for and FOCUS uses: int and unsigned long long.
template <typename T>
T atomicAdd(T* address, T value) {
    return focus::emulation::atomic_update(address, [=](T seen) { return seen + value; });
}

template <typename T>
T atomicMin(T* address, T value) {
    return focus::emulation::atomic_update(address, [=](T seen) { return value < seen ? value : seen; });
}

template <typename T>
T atomicMax(T* address, T value) {
    return focus::emulation::atomic_update(address, [=](T seen) { return value > seen ? value : seen; });
}

namespace focus {

template <typename... Parameters, typename... Arguments>
void launch(char const*, void (*kernel)(Parameters...), unsigned int blocks, unsigned int threads, Stream, Arguments... arguments) {
    if (blocks == 0) return;
    emulation::run(blocks, threads, [=] { kernel(arguments...); });
}

}  // namespace focus

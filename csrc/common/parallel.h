// The one way in which CPU kernels use several threads.
#pragma once

#if defined(__linux__)
#include <dlfcn.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace focus {

// The entry of the OpenMP runtime that torch runs its own operators on; null where there is none, or in a process forked from the one that
// loaded this module, in which the runtime waits for threads that were not forked with it. After an operator, the threads of the runtime
// wait for the next one by going in circles: threads of ours would have to share processors with them, and take longer to start.
using OpenMpParallel = void (*)(void (*work)(void*), void* data, unsigned threads, unsigned flags);
#if defined(__linux__)
inline pid_t const loading_process = getpid();

inline OpenMpParallel openmp_parallel() {
    static auto const entry = reinterpret_cast<OpenMpParallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return getpid() == loading_process ? entry : nullptr;
}
#else
inline OpenMpParallel openmp_parallel() { return nullptr; }
#endif

// Calls work(data) on at most `threads` threads at once, of which `useful` have something to do. The runtime of torch is always asked for
// all: it would end those that one call does not want, and torch's next operator would start them again.
inline void run_on_threads(void (*work)(void*), void* data, int threads, int64_t useful) {
    // Where a thread cannot be had, the runtime ends the process: no more than a machine runs, whatever was asked for. (Tests want a few.)
    static int const most = std::max(16, static_cast<int>(std::thread::hardware_concurrency()));
    threads = std::min(threads, most);
    if (OpenMpParallel const parallel = openmp_parallel()) return parallel(work, data, static_cast<unsigned>(threads), 0);
    threads = static_cast<int>(std::min<int64_t>(threads, useful));
    std::vector<std::thread> helpers;
    helpers.reserve(threads - 1);
    try {
        for (int i = 1; i < threads; ++i) helpers.emplace_back(work, data);
    } catch (...) {
        // No more threads to be had from the system: those that started, and this one, do all the work.
    }
    work(data);
    for (std::thread& helper : helpers) helper.join();
}

// Calls body(item) for every item in [0, count), on at most `threads` threads, in no promised order. Which thread runs an item must
// not change its result: that is how the kernels stay bit-identical for every thread count. An exception of a body is rethrown in
// the calling thread after all threads have ended.
template <typename Body>
void parallel_for(int64_t count, int threads, Body const& body) {
    if (threads <= 1 || count <= 1) {
        for (int64_t item = 0; item < count; ++item) body(item);
        return;
    }
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr failure;
    auto work = [&]() noexcept {
        try {
            for (int64_t item = next++; item < count; item = next++) body(item);
        } catch (...) {
            if (!failed.exchange(true)) failure = std::current_exception();
            next = count;
        }
    };
    run_on_threads([](void* data) { (*static_cast<decltype(work)*>(data))(); }, &work, threads, count);
    if (failure) std::rethrow_exception(failure);
}

// Two loops of which the second starts when the first is done; the threads are called together once for both.
template <typename First, typename Second>
void parallel_for(int64_t first_count, First const& first, int64_t second_count, Second const& second, int threads) {
    std::atomic<int64_t> unfinished{first_count};
    struct Finish {
        std::atomic<int64_t>& unfinished;
        ~Finish() { --unfinished; }  // after an exception, too: others may wait for it
    };
    parallel_for(first_count + second_count, threads, [&](int64_t item) {
        if (item < first_count) {
            Finish const finish{unfinished};
            first(item);
        } else {
            while (unfinished > 0) std::this_thread::yield();  // items are taken in order: all of the first loop are being worked on
            second(item - first_count);
        }
    });
}

// One thread for a loop that takes it only `nanoseconds`, roughly: to call the others together takes some microseconds.
inline int worthwhile_threads(int threads, double nanoseconds) {
    constexpr double kLeastWork = 100'000;
    return nanoseconds < kLeastWork ? 1 : threads;
}

// Items per task for a loop over `count` cheap elements: large enough to pay for a task, and independent of the thread count, so that
// sums over one chunk have the same bits on every machine.
constexpr int64_t kChunk = 1024;

inline int64_t chunk_count(int64_t count) { return (count + kChunk - 1) / kChunk; }

}  // namespace focus

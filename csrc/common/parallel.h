// The one way in which CPU kernels use several threads.
#pragma once

#if defined(__linux__)
#include <dlfcn.h>
#include <time.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
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

inline double seconds_now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Seconds for which the calling thread has had a processor; where nobody knows, those of a clock, so that sharing always seems to pay.
inline double processor_seconds() {
#if defined(__linux__)
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
#else
    return seconds_now();
#endif
}

// Of these, those that the thread has waited for others.
inline double& seconds_in_circles() {
    thread_local double seconds = 0.0;
    return seconds;
}

// Whether several threads are of use at the moment. Where others want the processors, too, a loop that is shared out ends when the system
// has run the last of its threads: milliseconds late, for which the others go in circles. Where that took longer than one thread would
// have, the loops of the next `kFirstPause` stay on one; then sharing is tried again, and twice as long is waited each time that it fails.
class SharingPays {
  public:
    static constexpr double kFirstPause = 0.02, kLongestPause = 1.0;

    bool at(double now) const { return now >= next_try_.load(std::memory_order_relaxed); }

    // After a loop that was shared out: when it ended, how long it took, and for how long its threads worked, all together.
    void learn(double now, double elapsed, double worked) {
        constexpr double kStart = 50e-6;  // what it takes to call threads together, and then some
        if (elapsed <= worked + kStart) {
            pause_.store(kFirstPause, std::memory_order_relaxed);
            return;
        }
        double const pause = pause_.load(std::memory_order_relaxed);
        next_try_.store(now + pause, std::memory_order_relaxed);
        pause_.store(std::min(2.0 * pause, kLongestPause), std::memory_order_relaxed);
    }

  private:
    std::atomic<double> next_try_{0.0}, pause_{kFirstPause};
};

inline SharingPays& sharing_pays() {
    static SharingPays pays;
    return pays;
}

// Calls body(item) for every item in [0, count), on at most `threads` threads, in no promised order. Which thread runs an item must
// not change its result: that is how the kernels stay bit-identical for every thread count. An exception of a body is rethrown in
// the calling thread after all threads have ended.
template <typename Body>
void parallel_for(int64_t count, int threads, Body const& body) {
    double const begin = threads > 1 && count > 1 ? seconds_now() : 0.0;
    if (threads <= 1 || count <= 1 || !sharing_pays().at(begin)) {
        for (int64_t item = 0; item < count; ++item) body(item);
        return;
    }
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr failure;
    std::atomic<int64_t> worked{0};  // nanoseconds
    auto work = [&]() noexcept {
        double const before = processor_seconds() - seconds_in_circles();
        try {
            for (int64_t item = next++; item < count; item = next++) body(item);
        } catch (...) {
            if (!failed.exchange(true)) failure = std::current_exception();
            next = count;
        }
        worked += static_cast<int64_t>(1e9 * (processor_seconds() - seconds_in_circles() - before));
    };
    run_on_threads([](void* data) { (*static_cast<decltype(work)*>(data))(); }, &work, threads, count);
    double const end = seconds_now();
    sharing_pays().learn(end, end - begin, 1e-9 * static_cast<double>(worked));
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
            if (unfinished > 0) {  // items are taken in order: all of the first loop are being worked on
                double const begin = processor_seconds();
                while (unfinished > 0) std::this_thread::yield();
                seconds_in_circles() += processor_seconds() - begin;
            }
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

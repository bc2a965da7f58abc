// Vector code of the CPU kernels: AVX2 where the processor has it, the baseline of the build (SSE2 on x86-64) elsewhere, chosen at run
// time. Both are compiled from the same lines, and neither contracts products and sums, so both compute the same bits.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>

#include "common/macros.h"

namespace focus {

#if defined(__x86_64__) && defined(__GNUC__)
constexpr bool kMayUseAvx2 = true;
#define FOCUS_TARGET_AVX2 __attribute__((target("avx2")))
inline bool processor_has_avx2() { return __builtin_cpu_supports("avx2"); }
#else
constexpr bool kMayUseAvx2 = false;
#define FOCUS_TARGET_AVX2
inline bool processor_has_avx2() { return false; }
#endif

// Whether AVX2 is used; tests and benchmarks clear it to run the baseline code.
inline std::atomic<bool>& uses_avx2() {
    static std::atomic<bool> uses{processor_has_avx2()};
    return uses;
}

template <typename Body>
FOCUS_TARGET_AVX2 void run_for_avx2(Body const& body) {
    body();
}

// Runs body(), compiled for both instruction sets. All that belongs into the AVX2 code must be inlined into it:
//     vectorized([&]() FOCUS_INLINE { for (...) ...; });
// and functions called from there are FOCUS_HD. (A whole file compiled with -mavx2 would leave AVX2 versions of shared
// inline functions for the linker to choose, and they would run on processors that lack it.)
template <typename Body>
void vectorized(Body const& body) {
    if (kMayUseAvx2 && uses_avx2().load(std::memory_order_relaxed)) {
        run_for_avx2(body);
    } else {
        body();
    }
}

// 32 bytes of T: one register with AVX2, two with SSE2. The usual operators work lane by lane; a comparison yields a vector of integers
// as wide as T, all bits set where it holds, and `holds ? a : b` selects by it.
template <typename T>
struct LanesOf {
    static constexpr int kCount = 32 / sizeof(T);
    typedef T Type __attribute__((vector_size(32)));
};

template <typename T>
using Lanes = typename LanesOf<T>::Type;

template <typename T>
FOCUS_INLINE inline Lanes<T> load_lanes(T const* from) {
    Lanes<T> lanes;
    std::memcpy(&lanes, from, sizeof(lanes));
    return lanes;
}

template <typename T>
FOCUS_INLINE inline void store_lanes(T* to, Lanes<T> lanes) {
    std::memcpy(to, &lanes, sizeof(lanes));
}

template <typename T>
FOCUS_INLINE inline Lanes<T> all_lanes(T value) {
    return value - Lanes<T>{};  // minus keeps -0
}

}  // namespace focus

// Vector code of the CPU kernels: AVX-512 (some loops) or AVX2 where the processor has it, the baseline of the build (SSE2 on x86-64)
// elsewhere, chosen at run time. All are compiled from the same lines, and none contracts products and sums, so all compute the same bits.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common/macros.h"
#include "common/vector.h"

namespace focus {

#if defined(__x86_64__) && defined(__GNUC__)
constexpr bool kMayUseAvx2 = true;
#define FOCUS_TARGET_AVX2 __attribute__((target("avx2")))
#define FOCUS_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
inline bool processor_has_avx2() { return __builtin_cpu_supports("avx2"); }
inline bool processor_has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#else
constexpr bool kMayUseAvx2 = false;
#define FOCUS_TARGET_AVX2
#define FOCUS_TARGET_AVX512
inline bool processor_has_avx2() { return false; }
inline bool processor_has_avx512() { return false; }
#endif

// Whether AVX2 is used; tests and benchmarks clear it to run the baseline code.
inline std::atomic<bool>& uses_avx2() {
    static std::atomic<bool> uses{processor_has_avx2()};
    return uses;
}

// The same for AVX-512, which is used only where AVX2 is, too.
inline std::atomic<bool>& uses_avx512() {
    static std::atomic<bool> uses{processor_has_avx512()};
    return uses;
}

template <typename Body>
FOCUS_TARGET_AVX2 void run_for_avx2(Body const& body) {
    body();
}

template <typename Body>
FOCUS_TARGET_AVX512 void run_for_avx512(Body const& body) {
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

// The same for code that is written in registers of their size: calls body(std::integral_constant<int, bytes>{}). With 32 bytes everywhere,
// GCC 12 takes comparisons and selections apart into single numbers where registers have 16.
template <typename Body>
void vectorized_by_register(Body const& body) {
    if (kMayUseAvx2 && uses_avx2().load(std::memory_order_relaxed)) {
        if (uses_avx512().load(std::memory_order_relaxed)) {
            run_for_avx512([&]() FOCUS_INLINE { body(std::integral_constant<int, 64>{}); });
        } else {
            run_for_avx2([&]() FOCUS_INLINE { body(std::integral_constant<int, 32>{}); });
        }
    } else {
        body(std::integral_constant<int, 16>{});
    }
}

template <typename T, int bytes>
struct RegisterOf {
    static constexpr int kCount = bytes / sizeof(T);
    typedef T Type __attribute__((vector_size(bytes)));
};

template <typename T, int bytes>
using Register = typename RegisterOf<T, bytes>::Type;

template <int bytes, typename T>
FOCUS_INLINE inline Register<T, bytes> load_register(T const* from) {
    Register<T, bytes> loaded;
    std::memcpy(&loaded, from, bytes);
    return loaded;
}

template <int bytes, typename T>
FOCUS_INLINE inline void store_register(T* to, Register<T, bytes> from) {
    std::memcpy(to, &from, bytes);
}

// Calls body(0), ..., body(count - 1) with constants.
template <int count, typename Body>
FOCUS_INLINE inline void unrolled(Body const& body) {
    if constexpr (count > 0) {
        unrolled<count - 1>(body);
        body(std::integral_constant<int, count - 1>{});
    }
}

// 32 bytes of T: one register with AVX2, two with SSE2. The usual operators work lane by lane; a comparison yields a vector of integers
// as wide as T, all bits set where it holds, and `holds ? a : b` selects by it.
template <typename T>
using LanesOf = RegisterOf<T, 32>;

template <typename T>
using Lanes = Register<T, 32>;

template <typename T>
FOCUS_INLINE inline Lanes<T> load_lanes(T const* from) {
    return load_register<32>(from);
}

template <typename T>
FOCUS_INLINE inline void store_lanes(T* to, Lanes<T> lanes) {
    store_register<32>(to, lanes);
}

template <typename T>
FOCUS_INLINE inline Lanes<T> all_lanes(T value) {
    return value - Lanes<T>{};  // minus keeps -0
}

template <>
struct ScalarOf<Lanes<float>> {
    using Type = float;
};

template <>
struct ScalarOf<Lanes<double>> {
    using Type = double;
};

template <typename T, int bytes>
FOCUS_INLINE inline Register<T, bytes> square_root_of_register(Register<T, bytes> squares) {
    T roots[bytes / sizeof(T)];
    store_register<bytes>(roots, squares);
    for (T& root : roots) root = sqrt(root);
    return load_register<bytes>(roots);
}

FOCUS_INLINE inline Register<float, 16> square_root(Register<float, 16> squares) { return square_root_of_register<float, 16>(squares); }
FOCUS_INLINE inline Register<float, 32> square_root(Register<float, 32> squares) { return square_root_of_register<float, 32>(squares); }
FOCUS_INLINE inline Register<double, 32> square_root(Register<double, 32> squares) { return square_root_of_register<double, 32>(squares); }

// One vector in each lane, from `from + lane * stride` on; 0 in the lanes from `count` on.
template <typename T>
FOCUS_INLINE inline Vector3<Lanes<T>> load3_lanes(T const* from, int64_t stride, int64_t count) {
    constexpr int kCount = LanesOf<T>::kCount;
    T x[kCount] = {}, y[kCount] = {}, z[kCount] = {};
    auto const load = [&](int lane) FOCUS_INLINE {
        x[lane] = from[lane * stride];
        y[lane] = from[lane * stride + 1];
        z[lane] = from[lane * stride + 2];
    };
    if (count >= kCount) {
        for (int lane = 0; lane < kCount; ++lane) load(lane);
    } else {
        for (int lane = 0; lane < count; ++lane) load(lane);
    }
    return {load_lanes(x), load_lanes(y), load_lanes(z)};
}

template <typename T>
FOCUS_INLINE inline void store3_lanes(T* to, int64_t stride, int64_t count, Vector3<Lanes<T>> vectors) {
    constexpr int kCount = LanesOf<T>::kCount;
    T x[kCount], y[kCount], z[kCount];
    store_lanes(x, vectors.x);
    store_lanes(y, vectors.y);
    store_lanes(z, vectors.z);
    auto const store = [&](int lane) FOCUS_INLINE { store3(to + lane * stride, {x[lane], y[lane], z[lane]}); };
    if (count >= kCount) {
        for (int lane = 0; lane < kCount; ++lane) store(lane);
    } else {
        for (int lane = 0; lane < count; ++lane) store(lane);
    }
}

// A Vector3 in one register: the fourth component stands for nothing, and arrays of these leave room for it.
template <typename T>
using Padded = Register<T, 4 * sizeof(T)>;

template <typename T>
FOCUS_INLINE inline Padded<T> load_padded(T const* from) {
    return load_register<4 * sizeof(T)>(from);
}

template <typename T>
FOCUS_INLINE inline void store_padded(T* to, Padded<T> a) {
    store_register<4 * sizeof(T)>(to, a);
}

// The first `count` of four numbers; 0 for the others.
template <typename T, typename Count>
FOCUS_INLINE inline Padded<T> load_first(T const* from, Count count) {
    if (count == 4) return load_padded(from);
    T values[4] = {};
    for (int i = 0; i < 3; ++i) {
        if (i < count) values[i] = from[i];
    }
    return load_padded(values);
}

template <typename T, typename Count>
FOCUS_INLINE inline void store_first(T* to, Padded<T> a, Count count) {
    if (count == 4) return store_padded<T>(to, a);
    for (int i = 0; i < 3; ++i) {
        if (i < count) to[i] = a[i];
    }
}

// Takes components of a, 0 to 3, and of b, 4 to 7.
template <typename T, int... kFrom>
FOCUS_INLINE inline Padded<T> merged(Padded<T> a, Padded<T> b) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, kFrom...);
#else
    return __builtin_shuffle(a, b, decltype(a < a){kFrom...});
#endif
}

template <typename T>
FOCUS_INLINE inline void transpose(Padded<T> (&rows)[4]) {
    Padded<T> const low = merged<T, 0, 4, 1, 5>(rows[0], rows[1]), high = merged<T, 2, 6, 3, 7>(rows[0], rows[1]),
                    next_low = merged<T, 0, 4, 1, 5>(rows[2], rows[3]), next_high = merged<T, 2, 6, 3, 7>(rows[2], rows[3]);
    rows[0] = merged<T, 0, 1, 4, 5>(low, next_low);
    rows[1] = merged<T, 2, 3, 6, 7>(low, next_low);
    rows[2] = merged<T, 0, 1, 4, 5>(high, next_high);
    rows[3] = merged<T, 2, 3, 6, 7>(high, next_high);
}

template <typename T, int... kFrom>
FOCUS_INLINE inline Padded<T> shuffled(Padded<T> a) {
#if defined(__clang__)
    return __builtin_shufflevector(a, a, kFrom...);
#else
    return __builtin_shuffle(a, decltype(a < a){kFrom...});  // GCC has the other one from version 12 on
#endif
}

template <typename T>
FOCUS_INLINE inline Padded<T> cross_padded(Padded<T> a, Padded<T> b) {
    auto const next = [](Padded<T> v) FOCUS_INLINE { return shuffled<T, 1, 2, 0, 3>(v); };
    auto const last = [](Padded<T> v) FOCUS_INLINE { return shuffled<T, 2, 0, 1, 3>(v); };
    return next(a) * last(b) - last(a) * next(b);
}

FOCUS_INLINE inline Padded<float> cross(Padded<float> a, Padded<float> b) { return cross_padded<float>(a, b); }
FOCUS_INLINE inline Padded<double> cross(Padded<double> a, Padded<double> b) { return cross_padded<double>(a, b); }

template <typename T>
FOCUS_INLINE inline bool is_finite_padded(Padded<T> a) {
    Padded<T> const zero_or_nan = a - a;
    return zero_or_nan[0] + zero_or_nan[1] + zero_or_nan[2] == T(0);
}

}  // namespace focus

// Compiler vocabulary shared by host and device code.
//
// A `.cu` file of FOCUS compiles three ways: with nvcc for the card, and with g++ under FOCUS_EMULATE_CUDA for the tests, where
// one real thread stands for each CUDA thread of a block (see emulation.h). `*_math.h` headers hold the arithmetic of an op once,
// as FOCUS_HD functions that the CPU and the CUDA kernel both call.
#pragma once

#if defined(__CUDACC__)
#define FOCUS_HD __host__ __device__ __forceinline__
#else
#define FOCUS_HD inline
#endif

namespace focus {

// Products and sums that no compiler may contract into a fused multiply-add, whatever its flags: the same bits on every target.
// The host side relies on -ffp-contract=off, set for the whole module in CMakeLists.txt.
FOCUS_HD double multiply_exactly_rounded(double a, double b) {
#if defined(__CUDA_ARCH__)
    return __dmul_rn(a, b);
#else
    return a * b;
#endif
}

FOCUS_HD double subtract_exactly_rounded(double a, double b) {
#if defined(__CUDA_ARCH__)
    return __dsub_rn(a, b);
#else
    return a - b;
#endif
}

}  // namespace focus
